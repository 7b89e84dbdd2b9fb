"""`veil up`, `veil status`, `veil down`: the embedded stack. `register` adds them to the program."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from veilstream.contracts.errors import VeilError

NOT_RUNNING = 3
"""Exit code of `status` and `down` when no stack runs on the folder."""

UNHEALTHY = 4
"""Exit code of `status` when a component did not answer."""

UP_POSTGRES, UP_REDIS = "VEIL_UP_POSTGRES", "VEIL_UP_REDIS"
"""Environment variables of --postgres and --redis: their passwords would be seen in the list of processes."""

Data = Annotated[Path, typer.Option("--data", envvar="VEIL_DATA_DIR", help="Folder of the stack: data, logs, ports.")]

_NO_ACTOR_LIMITS = (
    "limits by user and address are off: Redis does not answer the gate in time. Until it does, "
    "VEIL_ACTOR_LIMITS_WITHOUT_REDIS says whether records with such a limit pass uncounted or are refused"
)

_LACKING = {"accurate": "the extra `accurate`", "llm": "a key of any provider"}
"""What detection may lack, in words."""

_NOT_HERE = "With a password, set the variable instead: every user sees a command line."


def up(
    *,
    data: Data = Path(".veil"),
    bootstrap: Annotated[str | None, typer.Option(help="Use these Kafka servers and start no broker.")] = None,
    postgres: Annotated[
        str | None, typer.Option(envvar=UP_POSTGRES, help=f"Use this Postgres (a URI) and start none. {_NOT_HERE}")
    ] = None,
    redis: Annotated[
        str | None, typer.Option(envvar=UP_REDIS, help=f"Use this Redis (a URL) and start none. {_NOT_HERE}")
    ] = None,
    pool_workers: Annotated[
        int | None, typer.Option(min=0, help="Processes of the detection pool; 0: by cores.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when ready; the stack goes on.")] = False,
) -> None:
    """Start Kafka, Postgres, Redis and all agents, and keep them running until Ctrl-C.

    Examples:  veil up    veil up --detach --data /srv/veil    veil up --bootstrap kafka:9092 --pool-workers 4
    """
    from veilstream.stack.up import UpOptions, up_detached
    from veilstream.stack.up import up as run_up

    for variable in (UP_POSTGRES, UP_REDIS):
        os.environ.pop(variable, None)  # read by now, and no child's business
    console = Console(stderr=True)
    options = UpOptions(str(data.absolute()), bootstrap, postgres, redis, pool_workers)
    try:
        (up_detached if detach else run_up)(options, console)
    except VeilError as error:
        _fail(console, error, code=1)


def status(
    *, data: Data = Path(".veil"), as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show the running stack, and how fast every component answers. Exit code 3: none runs; 4: one does not answer.

    Examples:  veil status    veil status --json | jq .healthy
    """
    from veilstream.stack.show import components_table
    from veilstream.stack.status import status as ask

    try:
        found = ask(data.absolute())
    except VeilError as error:
        _fail(Console(stderr=True), error, code=NOT_RUNNING)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
    else:
        title = f"stack on {data.absolute()}: {found.state.phase}, Kafka at {found.state.bootstrap}"
        Console().print(components_table(found.state.components, title=title, latency_ms=found.latency_ms))
        if found.actor_limits is False:
            typer.echo(_NO_ACTOR_LIMITS)
        for provider in (name for name, state in found.llm_breakers.items() if state != "closed"):
            typer.echo(f"LLM classifier: {provider} fails and is left alone for a while (docs/threats-llm.md)")
        for what, policies in found.detection_lacks.items():
            typer.echo(f"detection lacks {_LACKING[what]} that {policies} of the policies ask for: its log names them")
    if not found.healthy:
        raise typer.Exit(UNHEALTHY)


def down(*, data: Data = Path(".veil")) -> None:
    """End the running stack in order: agents finish what they have begun, then the servers. Data stays.

    Example:  veil down
    """
    from veilstream.stack.down import down as end

    console = Console(stderr=True)
    try:
        ended = end(data.absolute())
    except VeilError as error:
        _fail(console, error, code=1)
    if not ended:
        console.print(f"no stack runs on {data.absolute()}")
        raise typer.Exit(NOT_RUNNING)
    console.print("the stack has ended; its data stays")


def register(app: typer.Typer) -> None:
    """Add the three commands to the program."""
    for command in (up, status, down):
        app.command()(command)


def _fail(console: Console, error: VeilError, *, code: int) -> NoReturn:
    console.print(f"error: {error}", markup=False, soft_wrap=True)
    raise typer.Exit(code)
