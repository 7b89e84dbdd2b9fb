"""`veil keys`: the local-file key service, and the rotation of a tenant's root key."""

from __future__ import annotations

import typer

from veilstream.cli.command import COMMAND_TIMEOUT_S, answers, show
from veilstream.cli.options import DATA_DIR, AsJson, Data, TimeoutS
from veilstream.cli.tenant_options import TenantId

app = typer.Typer(help="The master key of the local-file key service, and tenants' keys.", no_args_is_help=True)


@app.command()
def init(*, data: Data = DATA_DIR) -> None:
    """Make the master key unless it is there. Back it up: without it nothing that was sealed opens again.

    The folder is VEIL_KEYS_DIR, or `keys` in the data folder; every agent needs the same file.
    Example:  VEIL_KEYS_DIR=/etc/veil/keys veil keys init
    """
    from veilstream.keys.service import LocalFile, make_master_key
    from veilstream.settings import Settings

    folder = Settings(data_dir=data).keys_folder
    before = (folder / LocalFile.key).exists()
    path = make_master_key(folder)
    LocalFile(folder)  # says so where it cannot be used
    typer.echo(f"{path} {'was there already and stays' if before else 'made; back it up'}")


@app.command()
def rotate(
    tenant: TenantId, *, timeout_s: TimeoutS = COMMAND_TIMEOUT_S, as_json: AsJson = False, data: Data = DATA_DIR
) -> None:
    """Give a tenant a new root key, while its records flow. What was sealed under the former one still opens.

    Producers that hold the former public key go on; those that follow veil.public-keys seal to the new one by themselves.
    Example:  veil keys rotate acme
    """
    [now], _ = answers(data, [("tenant.show", {})], tenant=tenant, timeout_s=timeout_s)
    body = {} if now["key_id"] is None else {"replaces": now["key_id"]}
    [told], reason = answers(data, [("keys.rotate", body)], tenant=tenant, timeout_s=timeout_s)
    show("tenant", told, reason, as_json=as_json)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="keys")
