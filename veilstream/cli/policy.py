"""`veil policy`: show, set, activate and list policy versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from veilstream.cli.command import COMMAND_TIMEOUT_S, answers, show
from veilstream.cli.options import DATA_DIR, DEMO, AsJson, Data, Tenant, TimeoutS
from veilstream.contracts.errors import ConfigError

app = typer.Typer(help="Policies: what is looked for, and what is done about it.", no_args_is_help=True)

FILE_BYTES_MAX = 1 << 20
"""A command is one record of at most 1 MiB."""


@app.command(name="show")
def show_policy(
    *,
    policy: Annotated[str | None, typer.Option(help="Policy id; default: the tenant's active one.")] = None,
    version: Annotated[str | None, typer.Option(help="Its version; needed with --policy.")] = None,
    tenant: Tenant = DEMO,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Show the policy a tenant is judged by, or one version by name, with its document.

    Examples:  veil policy show    veil policy show --policy default --version 1.0.0
    """
    if (policy is None) != (version is None):
        raise ConfigError("give both --policy and --version, or neither")
    if policy is None:
        [active], _ = answers(data, [("policy.show", {})], tenant=tenant, timeout_s=timeout_s)
        policy, version = active["current"]["policy"], active["current"]["version"]
    [told], reason = answers(
        data, [("policy.show", {"policy": policy, "version": version})], tenant=tenant, timeout_s=timeout_s
    )
    document = None if as_json else told.pop("document", None)
    show("policy version", told, reason, as_json=as_json)
    if document is not None:
        _print_document(document)


@app.command(name="set")
def set_policy(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON document.", show_default=False)],
    *,
    activate: Annotated[bool, typer.Option("--activate/--no-activate", help="Put it in force for the tenant.")] = True,
    tenant: Tenant = DEMO,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Store a policy version and put it in force for a tenant. Versions never change: a new content needs a new version.

    Examples:  veil policy set strict.yaml --tenant acme    veil policy set draft.yaml --no-activate
    """
    body = {"document": read_document(file), "activate": activate}
    [told], reason = answers(data, [("policy.set", body)], tenant=tenant, timeout_s=timeout_s)
    show("policy version", told, reason, as_json=as_json)


@app.command(name="check")
def check_policy(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON document.", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """Check a policy file without storing it, and without a cluster: every violation is told, with what is allowed there.

    Example:  veil policy check strict.yaml
    """
    from veilstream.policy.document import parse_policy

    policy = parse_policy(read_document(file))
    told = {"policy": policy.id, "version": policy.version, "digest": policy.digest}
    show("policy", told, "the document is a policy", as_json=as_json)


@app.command()
def activate(
    policy: Annotated[str, typer.Argument(metavar="POLICY", show_default=False)],
    version: Annotated[str, typer.Argument(metavar="VERSION", show_default=False)],
    *,
    tenant: Tenant = DEMO,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Put a stored version in force for a tenant: a roll-out, or a roll-back.

    Example:  veil policy activate strict 1.2.0 --tenant acme
    """
    body = {"policy": policy, "version": version}
    [told], reason = answers(data, [("policy.activate", body)], tenant=tenant, timeout_s=timeout_s)
    show("in force", told, reason, as_json=as_json)


@app.command(name="list")
def list_policies(*, timeout_s: TimeoutS = COMMAND_TIMEOUT_S, as_json: AsJson = False, data: Data = DATA_DIR) -> None:
    """List every stored version.

    Example:  veil policy list
    """
    import orjson
    from rich.console import Console
    from rich.table import Table

    [told], _ = answers(data, [("policy.list", {})], tenant=None, timeout_s=timeout_s)
    rows: list[dict[str, Any]] = told["policies"]
    if as_json:
        for row in rows:
            typer.echo(orjson.dumps(row))
        return
    names = ("policy", "version", "status", "author", "digest")
    table = Table(*names, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(str(row.get(name, ""))[:20] for name in names))
    Console().print(table)


def read_document(file: Path) -> str:
    """The text of a policy file. Raises ConfigError."""
    try:
        raw = file.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{file} cannot be read ({type(exc).__name__}): name a YAML or JSON file") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{file} has {len(raw)} bytes, a policy at most {FILE_BYTES_MAX}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8: save it as UTF-8") from None


def _print_document(document: Any) -> None:
    import yaml
    from rich.console import Console
    from rich.syntax import Syntax

    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    Console().print(Syntax(text, "yaml", background_color="default"))


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="policy")
