"""What a Postgres error means for the pipeline: the world's fault (held and tried again), or the end of the process.

The text of a database error may hold row values: only its class and SQLSTATE are told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from veilstream.contracts.errors import VeilError, WorldError

READ_ONLY_SQLSTATES = ("25006",)
"""After a failover the old address may answer as a replica until it is corrected."""


class StoreError(VeilError):
    """The audit store holds something else than this process knows of: the process ends and starts from what is stored."""

    code = "store_conflict"


class FencedError(StoreError):
    """A newer owner claimed the partition: this process wrote nothing and must end."""

    code = "store_fenced"


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise database errors as ours: WorldError while Postgres is away or busy, StoreError for anything else."""
    try:
        yield
    except psycopg.Error as exc:
        state = exc.sqlstate or "none"
        kind = type(exc).__name__
        if isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError) or state in READ_ONLY_SQLSTATES:
            raise WorldError(
                f"the audit store is away or refuses work while {doing} ({kind}, SQLSTATE {state}): check the server "
                "that VEIL_POSTGRES names; the partition is held and nothing is lost",
                code="store_unavailable",
            ) from None
        raise StoreError(
            f"the audit store failed while {doing} ({kind}, SQLSTATE {state}): check the rights of "
            "the login in VEIL_POSTGRES and of its role (docs/security.md, Postgres)"
        ) from None
