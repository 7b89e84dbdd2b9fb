"""The audit store in Postgres: events and the offset they reach are written in one database transaction.

It is the sink of the audit agent. The offset in the database rules: the agent seeks to it, so every event of the audit topic is
stored once, whatever happened to the agent's Kafka transaction. A claim raises the partition's epoch; a former owner that
wakes up finds that its epoch no longer fits and ends. All of it is done as the role veil_audit, which appends and reads no event
(roles.py); reading.py reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import psycopg

from veilstream.audit.rows import AuditRow, values
from veilstream.store.connecting import connected, pool_as
from veilstream.store.errors import FencedError, StoreError, translated
from veilstream.store.inserting import insert
from veilstream.store.migrations import migrate
from veilstream.store.roles import AUDIT

_NAME = "veil-audit"

_CLAIM = (
    "INSERT INTO veil.consumer_offsets AS o (topic, partition, next_offset, epoch) VALUES (%s, %s, NULL, 1) "
    "ON CONFLICT (topic, partition) DO UPDATE SET epoch = o.epoch + 1 RETURNING next_offset, epoch"
)
_AS_LOGIN = "SET LOCAL ROLE NONE"
_END_HOLDERS = (
    "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.application_name = 'veil-audit' "
    "AND a.usename = session_user AND a.pid <> pg_backend_pid() AND a.xact_start < now() - interval '4 seconds' "
    "AND EXISTS (SELECT 1 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE l.pid = a.pid AND n.nspname = 'veil' AND c.relname = 'consumer_offsets')"
)
"""A former owner that was stopped while it sent a statement holds its row for as long as it is stopped: between the messages
of one statement no time limit of Postgres counts. Whoever claims is the newer owner and may end it; one that is alive writes
again on a new connection. Sessions belong to the login, so it is the login that ends them."""
_LOCK = "SELECT next_offset, epoch FROM veil.consumer_offsets WHERE topic = %s AND partition = %s FOR UPDATE"
_ADVANCE = "UPDATE veil.consumer_offsets SET next_offset = %s WHERE topic = %s AND partition = %s"


@dataclass(frozen=True, slots=True)
class _Claim:
    """What this process knows of a partition it owns."""

    epoch: int
    next_offset: int | None
    unsure: int | None = None
    """The next offset of a write whose commit was not answered: the database may have it or not."""


class AuditStore:
    """Postgres behind a small pool. Every method raises WorldError while the database is away."""

    def __init__(self, uri: str, *, max_connections: int = 4, get_timeout_s: float = 5.0) -> None:
        self._uri = uri
        self._pool = pool_as(uri, AUDIT, _NAME, max_connections=max_connections, get_timeout_s=get_timeout_s)
        self._claims: dict[tuple[str, int], _Claim] = {}
        self._prepared = False

    async def start(self) -> None:
        """Nothing yet: the first claim connects, so that a database that is still away is waited for there."""

    async def stop(self) -> None:
        """Close all connections; an open transaction is rolled back."""
        await self._pool.close()

    async def claim(self, partitions: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], int | None]:
        """Fence former owners and tell the next offset of each partition; None: nothing stored yet.

        The first claim brings the database up to date, with the login's own rights. Raises ConfigError where they do not do.
        """
        with translated("claiming partitions"):
            if not self._prepared:
                async with await connected(self._uri, _NAME) as login:
                    await migrate(login)
                await self._pool.open(wait=False)
                self._prepared = True
            async with self._pool.connection() as connection:
                try:
                    claims = await _claimed(connection, partitions)
                except psycopg.errors.LockNotAvailable:
                    async with connection.transaction():
                        await connection.execute(_AS_LOGIN)
                        await connection.execute(_END_HOLDERS)
                    raise  # as the world's fault: the claim is tried again
        self._claims.update(claims)
        return {key: claim.next_offset for key, claim in claims.items()}

    async def write(self, topic: str, partition: int, rows: Sequence[object], next_offset: int) -> None:
        """Store rows and next offset in one transaction. Returns only when it is committed.

        1. Take the row lock of the partition's offset; the epoch must still be this process's: else FencedError.
        2. The stored offset must be the one this process left there: else StoreError. After a commit that was not answered, it
           may also be the one that commit would have left; then its rows are stored and are not written again.
        3. Make the months the rows need, store the rows, set the offset.
        """
        claim = self._claims.get((topic, partition))
        if claim is None:
            raise StoreError(
                f"{topic}/{partition} was not claimed before it was written: the runtime must claim it first"
            )
        batch = _checked(rows, claim, next_offset, f"{topic}/{partition}")
        with translated("storing events"):
            try:
                async with self._pool.connection() as connection, connection.transaction():
                    stored = await _locked_offset(connection, topic, partition, claim)
                    claim = replace(claim, next_offset=stored, unsure=None)
                    batch = [row for row in batch if stored is None or row.offset >= stored]
                    if stored is None or next_offset > stored:
                        await _insert(connection, batch, topic, partition)
                        await connection.execute(_ADVANCE, (next_offset, topic, partition))
                        claim = replace(claim, unsure=next_offset)
            finally:  # `unsure` stands until a later transaction has looked
                self._claims[topic, partition] = claim
        done = next_offset if claim.next_offset is None else max(next_offset, claim.next_offset)
        self._claims[topic, partition] = replace(claim, next_offset=done, unsure=None)


async def _claimed(
    connection: psycopg.AsyncConnection[Any], partitions: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], _Claim]:
    claims = {}
    async with connection.transaction():
        for topic, partition in sorted(set(partitions)):  # in one order, so that two claims cannot deadlock
            row = await (await connection.execute(_CLAIM, (topic, partition))).fetchone()
            assert row is not None, "INSERT … RETURNING gives a row"
            claims[topic, partition] = _Claim(epoch=row[1], next_offset=row[0])
    return claims


def _checked(rows: Sequence[object], claim: _Claim, next_offset: int, where: str) -> list[AuditRow]:
    """The rows, in strictly rising offsets, all of them from what is stored to the next offset."""
    batch = [row for row in rows if isinstance(row, AuditRow)]
    if len(batch) != len(rows):
        raise StoreError(f"something else than an AuditRow was to be stored for {where}: see agents/audit/step.py")
    offsets = [row.offset for row in batch]
    least = -1 if claim.next_offset is None else claim.next_offset
    if offsets != sorted(set(offsets)) or (offsets and (offsets[0] < least or offsets[-1] >= next_offset)):
        raise StoreError(f"offsets of {where} are not one rising run from {least} to {next_offset}: nothing was stored")
    if next_offset < least:
        raise StoreError(f"the offset of {where} would go back from {least} to {next_offset}: nothing was stored")
    return batch


async def _locked_offset(
    connection: psycopg.AsyncConnection[Any], topic: str, partition: int, claim: _Claim
) -> int | None:
    row = await (await connection.execute(_LOCK, (topic, partition))).fetchone()
    if row is None or row[1] != claim.epoch:
        now = "no claim" if row is None else f"epoch {row[1]}"
        raise FencedError(
            f"{topic}/{partition} was claimed by another worker: this process holds epoch {claim.epoch}, the database "
            f"(veil.consumer_offsets) has {now}, and the database rules. Nothing was stored; this process ends"
        )
    stored: int | None = row[0]
    if stored != claim.next_offset and (claim.unsure is None or stored != claim.unsure):
        raise StoreError(
            f"{topic}/{partition} is stored up to {stored} (veil.consumer_offsets), this process left it at "
            f"{claim.next_offset}; the database rules. Nothing was stored; this process ends and starts from there"
        )
    return stored


async def _insert(
    connection: psycopg.AsyncConnection[Any], batch: Sequence[AuditRow], topic: str, partition: int
) -> None:
    records = [values(row, topic, partition) for row in batch]
    months = sorted({date(record[0].year, record[0].month, 1) for record in records})
    for month in months:
        await connection.execute("SELECT veil.ensure_audit_month(%s)", (month,))
    if records:
        await insert(connection, records)
