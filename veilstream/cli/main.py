"""The program `veil`: registers every command, and turns an error into one line and an exit code.

Exit codes: 0 done, or allowed; 1 an error, told in one line; 2 wrong usage; `veil ledger --wait`: 2 where records are still
in work when the time is up; `veil check`: 3 review, 4 block, 5 refused;
130 Ctrl-C. No text of a record is ever part of an error.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from veilstream.cli import (
    audit,
    cache,
    check,
    demo,
    dlq,
    keys,
    ledger,
    policy,
    produce,
    session,
    stack,
    tenant,
    token,
    topics,
    verdicts,
    worker,
)
from veilstream.contracts.errors import VeilError

FAILED = 1
INTERRUPTED = 130
_PACKAGE = Path(__file__).parent.parent

app = typer.Typer(
    name="veil",
    help="A firewall for text on Kafka: one verdict for each record, a safe version of its text, an audit of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would print local variables, and so text
    rich_markup_mode=None,
)
for part in (
    stack, demo, check, produce, verdicts, audit, ledger, dlq, policy, tenant, session, token, topics, keys, cache, worker,
):  # fmt: skip
    part.register(app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its exit code."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="veil")
    except VeilError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `veil verdicts | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:  # noqa: BLE001  its text may hold content: only where it was raised is told
        _fail(f"internal error ({type(error).__name__}) at {_place(error)}: please report it with this line")
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(FAILED)


def _place(error: BaseException) -> str:
    """File and line of ours that was last on the way to the error, without a path of this machine."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _PACKAGE in Path(frame.filename).parents] or list(frames)
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


if __name__ == "__main__":
    main()
