"""`veil token revoke`: refuse one token before it has expired."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from veilstream.cli.command import COMMAND_TIMEOUT_S, answers, show
from veilstream.cli.options import DATA_DIR, AsJson, Data, TimeoutS, moment
from veilstream.cli.tenant_options import TenantId


def revoke(
    tenant: TenantId,
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's jti.", show_default=False)],
    *,
    until: Annotated[
        str | None, typer.Option(help="Until when, ISO time, 24 hours ahead at most; default: 24 hours from now.")
    ] = None,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Refuse a token of a tenant from now on, by its id (jti). Again changes nothing.

    Example:  veil token revoke acme 6f1c2a0e
    """
    body: dict[str, Any] = {"id": token_id}
    if until is not None:
        body["until_ms"] = int(moment(until, datetime.now(UTC)).timestamp() * 1000)
    [told], reason = answers(data, [("token.revoke", body)], tenant=tenant, timeout_s=timeout_s)
    show("token", told, reason, as_json=as_json)
