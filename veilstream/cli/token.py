"""`veil token`: make keys that sign tokens, and sign for producers that do not use the client library."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from veilstream.cli.token_revoke import revoke
from veilstream.contracts.errors import ConfigError

app = typer.Typer(help="Signed tokens: who sent a record, and for which tenant.", no_args_is_help=True)

Tenants = Annotated[list[str] | None, typer.Option("--tenant", "-t", help="Tenant it may sign for. Repeat it.")]


@app.callback()
def group() -> None:
    """Signed tokens: who sent a record, and for which tenant."""


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="PEM file the private key is written to; must be new.")],
    *,
    key_id: Annotated[str | None, typer.Option(help="Its `kid`; default: the file's name without ending.")] = None,
    tenant: Tenants = None,
    any_tenant: Annotated[
        bool, typer.Option("--any-tenant", help="It may sign for every tenant: an issuer's key.")
    ] = False,
    into: Annotated[
        Path | None, typer.Option("--set", help="JWK set the public key is added to; default: printed.")
    ] = None,
) -> None:
    """Make an Ed25519 key: the private one into FILE, readable by its owner alone, the public one as a JWK set.

    The set is what the gate's VEIL_TOKEN_KEYS names; FILE is a producer's VEIL_TOKEN_SIGNING_KEY.
    Example:  veil token keygen shop-2026.pem --tenant acme --set /etc/veil/token-keys.json
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if bool(tenant) == any_tenant:
        raise ConfigError(
            "say for whom the key may sign: --tenant TENANT (repeat it), or --any-tenant for an issuer's key"
        )
    key, name = Ed25519PrivateKey.generate(), key_id or file.stem
    document = {"keys": []} if into is None else _read_set(into)
    entry = _public(key.public_key().public_bytes_raw(), name, tenant)
    if any(isinstance(known, dict) and known.get("kid") == name for known in document["keys"]):
        raise ConfigError(f"{into} has a key `{name}` already: give the new one another name by --key-id")
    document["keys"].append(entry)
    _write_private(file, key)
    _show(document, into)
    typer.echo(f"{file} made: VEIL_TOKEN_SIGNING_KEY={file} VEIL_TOKEN_KEY_ID={name} VEIL_TOKEN_SUBJECT=…", err=True)


@app.command()
def sign(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The record's value, byte for byte; `-`: standard input.")
    ],
    *,
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Tenant of the record.", show_default=False)],
) -> None:
    """Print a token for one record value, for the header `veil-token`. It is good for this value, once, for five minutes.

    The key is that of VEIL_TOKEN_SIGNING_KEY, VEIL_TOKEN_KEY_ID and VEIL_TOKEN_SUBJECT.
    Example:  veil token sign record.json --tenant acme
    """
    from veilstream.client.token import signer_of
    from veilstream.settings import Settings

    signer = signer_of(Settings())
    if signer is None:
        raise ConfigError(
            "no signing key is set: set VEIL_TOKEN_SIGNING_KEY, VEIL_TOKEN_KEY_ID and VEIL_TOKEN_SUBJECT; `veil token keygen` "
            "makes a key"
        )
    typer.echo(signer.token(tenant, _value(file)))


def _public(raw: bytes, name: str, tenants: list[str] | None) -> dict[str, Any]:
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    entry = {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": name, "alg": "EdDSA", "use": "sig"}
    return entry if not tenants else entry | {"veil_tenants": tenants}


def _read_set(path: Path) -> dict[str, Any]:
    import orjson

    if not path.exists():
        return {"keys": []}
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ConfigError(f"{path} is no JWK set (a JSON object with a list `keys`): name another file by --set")
    return document


def _write_private(path: Path, key: Any) -> None:
    """Exclusively, and closed to others from the first moment on."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be made ({exc.strerror}): name a new file; a key is never overwritten"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())


def _show(document: dict[str, Any], into: Path | None) -> None:
    import orjson

    text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if into is None:
        typer.echo(text, nl=False)
        return
    draft = into.with_name(f".{into.name}.{os.urandom(8).hex()}")  # a gate reads it at any moment: whole or not at all
    try:
        draft.write_bytes(text)
        draft.replace(into)
    except OSError as exc:
        draft.unlink(missing_ok=True)
        raise ConfigError(f"{into} cannot be written ({exc.strerror}): name another file by --set") from None


def _value(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as exc:
        raise ConfigError(f"{file} cannot be read ({exc.strerror}): name a file, or - for standard input") from None


app.command()(revoke)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="token")
