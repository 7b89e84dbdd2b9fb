"""`veil keys`: the local-file key service."""

from __future__ import annotations

import typer

from veilstream.cli.options import DATA_DIR, Data

app = typer.Typer(help="The master key of the local-file key service.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """The master key of the local-file key service."""


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


def register(root: typer.Typer) -> None:
    """Add the command."""
    root.add_typer(app, name="keys")
