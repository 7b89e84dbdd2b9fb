"""Policy: judges commands, one by one, in one total order.

Reads `veil.commands` (one partition), and of `veil.dead-letters` the one letter that a command names. Writes
`veil.command.results`, `veil.keys`, `veil.session-keys`, `veil.public-keys`, `veil.audit`, `veil.redrive`,
`veil.dead-letters`; what is a tenant's own on `veil.public-keys.T` and `veil.audit.T` where it has topics of its own. Its
table's changelog is `veil.state` itself: a row it writes is a row every agent follows.
Promises: each command has one result, under its id; each that can change something or shows content, and each refused one,
has one audit event, in the transaction of its result; a refused command writes no state. A letter of one revision is
redriven once, whatever is repeated. Kafka or the key service away: the partition is held; a tenant's wrapped key that the
service refuses: that tenant's commands alone are refused. Redis and Postgres: not needed.

Randomness: a new root key is drawn from the system's source, so that a batch done again draws another one. That does no
harm: key, tenant and result are published in one transaction, so exactly one of the keys ever comes to be (roots.py).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TypeAlias

import orjson

from agents.policy.roots import Roots
from veilstream.contracts import catalogue
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.codec import Codec, is_avro
from veilstream.contracts.errors import ErasedError, RecordError, TenantError, WorldError
from veilstream.contracts.identity import Origin, digest_of
from veilstream.contracts.records import AuditEvent, Command, CommandResult, DeadLetter, Redrive, Tenant
from veilstream.contracts.step import Done, Failure, Item, Outcome, Output, Record
from veilstream.keys.keyring import OPERATIONS, KeyRing, TenantKeys
from veilstream.keys.service import KeyService
from veilstream.policy import dead_letters
from veilstream.policy.case import DELETED, Case, Judgement, Place
from veilstream.policy.commands import KEY_REFUSED, KINDS, judge
from veilstream.policy.edge import read_json
from veilstream.policy.state import State, tenant_key
from veilstream.policy.tenants import own_topics_wanted
from veilstream.policy.upkeep import Upkeep
from veilstream.verdicts.dead_letters import dead_letter

AGENT = "policy"
INVALID = "invalid_command"
TRACE = "traceparent"
KEPT_UP_BY = (*dead_letters.KINDS, "token.revoke", "cache.purge")
"""Kinds of commands that write rows which are deleted one day: each of them deletes some."""
_FIELDS_MAX = {"id": 200, "kind": 100, "actor": 500, "tenant": 200}
"""Characters; these come back in the result, which must not outgrow its topic. The tenant's form is the judge's question."""


Letters: TypeAlias = Callable[[int, int], Awaitable[Record | None]]
"""The committed record of veil.dead-letters at (partition, offset); None: there is none (any more). Raises WorldError."""


Unusable: TypeAlias = Callable[[str], Awaitable[tuple[str, ...]]]
"""Of a tenant's own topics those that are not there, or that this agent may not use. Raises WorldError."""


async def _none_missing(_: str) -> tuple[str, ...]:
    return ()


class PolicyAgent:
    """What the policy agent does with a record: `decode`, `step`, `on_failure` are the three functions of an agent."""

    def __init__(
        self,
        codec: Codec,
        key_service: KeyService,
        keyring: KeyRing,
        *,
        letters: Letters,
        cluster: str,
        unusable: Unusable | None = None,
        session_home: Callable[[str], int],
    ) -> None:
        self._codec = codec
        self._letters = letters
        self._session_home = session_home
        self._unusable: Unusable = unusable or _none_missing
        self._roots = Roots(key_service, keyring)
        self._keyring = keyring
        self._cluster = cluster
        self._upkeep = Upkeep(codec)

    def decode(self, record: Record) -> Command:
        """Avro or JSON → command. Raises RecordError."""
        return decode_command(self._codec, record.value)

    async def step(self, batch: Sequence[Item[Command]]) -> Sequence[Outcome]:
        """Judge the commands in order; each sees the rows the ones before it wrote."""
        return [await self._judge(item) for item in batch]

    def on_failure(self, record: Record, failure: Failure) -> Sequence[Output]:
        """A refusing result where the command can be read, and a dead letter."""
        letter = dead_letter(self._codec, self._keyring, AGENT, record, failure, self._cluster)
        try:
            command = self.decode(record)
        except Exception:  # noqa: BLE001  what cannot be read has no id to answer to
            return (letter,)
        refusal = Judgement("command", failure.reason, code=failure.code)
        event = self._failed_event(record, command, refusal)
        return (self._result(record, command, refusal), *event, letter)

    async def _judge(self, item: Item[Command]) -> Outcome:
        record, command, table = item.record, item.value, item.table
        letter = await self._letter(command)
        await self._open_keys(State(self._codec, table), command, letter)
        operations, made = await self._operations(table, record)
        author = actor_pseudonym(operations, command.actor)
        place = Place(record.timestamp_ms, record.offset)
        state = State(self._codec, table)
        missing = await self._missing(command)
        case = Case(command, place, self._codec, state, self._roots, author, self._keyring, letter, missing)
        shared = self._uses_shared(table, command)
        said = await self._roots.judged(lambda: judge(case))
        table.update(said.writes)
        if said.code is None and command.kind in KEPT_UP_BY:
            for key in self._upkeep.outlived(table, record.timestamp_ms):
                del table[key]
        outputs = [*made, *(Output(catalogue.KEYS, key.key_id.encode(), self._codec.encode(key)) for key in said.keys)]
        outputs += [
            Output(
                catalogue.SESSION_KEYS, key.key_id.encode(), self._codec.encode(key),
                partition=self._session_home(key.tenant),
            )
            for key in said.session_keys
        ]  # fmt: skip
        self._take_erasures(said, record)
        outputs += self._public_keys(State(self._codec, table), said, was_shared=shared)
        if said.redrive is not None:
            outputs.append(self._redrive(said.redrive, said.traceparent))
        outputs.append(self._result(record, command, said))
        kind = KINDS.get(command.kind)
        if said.code is not None or kind is None or kind.audited:
            tenant, keys = self._audited_under(State(self._codec, table), command, operations)
            topic = self._topic(catalogue.AUDIT, State(self._codec, table), tenant)
            outputs.append(self._event(record, command, said, tenant, keys, topic=topic))
        return Done(tuple(outputs), "refused" if said.code else "done")

    def _take_erasures(self, said: Judgement, record: Record) -> None:
        """The commands behind an erasure find the session erased, also before its entry has come back from the topic.

        Before the transaction has ended: where it does not, the process ends with it, or the command is judged again.
        """
        for entry in said.session_keys:
            if entry.status == "destroyed":
                home = self._session_home(entry.tenant)
                self._keyring.sessions.apply(entry.key_id, entry, record.timestamp_ms, home)

    async def _missing(self, command: Command) -> tuple[str, ...]:
        """Of the own topics a command asks for, those that are not there or not for this agent. Raises WorldError."""
        tenant = own_topics_wanted(command)
        return () if tenant is None else await self._unusable(tenant)

    def _uses_shared(self, table: MutableMapping[bytes, bytes], command: Command) -> bool:
        row = State(self._codec, table).tenant(command.tenant) if command.tenant else None
        return row is not None and not row.own_topics

    def _public_keys(self, state: State, said: Judgement, *, was_shared: bool) -> list[Output]:
        """To the topic that the tenant's producers follow; who has topics of its own stands in no list that others see."""
        outputs = []
        for public in said.public_keys:
            topic = self._topic(catalogue.PUBLIC_KEYS, state, public.tenant)
            outputs.append(Output(topic, public.tenant.encode(), self._codec.encode(public)))
            if was_shared and topic != catalogue.PUBLIC_KEYS:
                outputs.append(Output(catalogue.PUBLIC_KEYS, public.tenant.encode(), None))
        for tenant in said.withdrawn:
            outputs.append(Output(self._topic(catalogue.PUBLIC_KEYS, state, tenant), tenant.encode(), None))
        return outputs

    def _topic(self, name: str, state: State, tenant: str) -> str:
        """Where this is written for a tenant: its own topic, where it has some."""
        row = state.tenant(tenant) if tenant else None
        return name if row is None or not row.own_topics else catalogue.own_topic(name, tenant)

    async def _letter(self, command: Command) -> DeadLetter | None:
        """The dead letter a command names. Raises WorldError."""
        place = dead_letters.named(command)
        found = None if place is None else await self._letters(place.partition, place.offset)
        return None if found is None or found.value is None else self._codec.decode(DeadLetter, found.value)

    def _redrive(self, redrive: Redrive, traceparent: str | None) -> Output:
        headers = () if traceparent is None else ((TRACE, traceparent.encode()),)
        return Output(catalogue.REDRIVE, str(redrive.origin).encode(), self._codec.encode(redrive), headers)

    async def _open_keys(self, state: State, command: Command, letter: DeadLetter | None) -> None:
        """Have in memory what judge and audit look up: of a letter, any version of its tenant's key. Raises WorldError."""
        tenant = command.tenant or OPERATIONS
        row = state.tenant(tenant)
        wanted: list[tuple[str, str | None]] = [(OPERATIONS, None), (tenant, None if row is None else row.key_id)]
        if letter is not None:
            wanted += [(tenant, entry.key_id) for entry in self._keyring.entries(tenant)]
        await self._keyring.prepare(wanted)

    async def _operations(self, table: MutableMapping[bytes, bytes], record: Record) -> tuple[TenantKeys, list[Output]]:
        """The operations key; the first command there is makes it, so that every command can be audited."""
        row = State(self._codec, table).tenant(OPERATIONS)
        if row is not None:
            return self._operations_of(row), []
        root = await self._roots.judged(lambda: self._roots.root(OPERATIONS, None, record.timestamp_ms))
        row = Tenant(OPERATIONS, root.key_id, root.public_key, record.timestamp_ms, record.offset)
        table[tenant_key(OPERATIONS)] = self._codec.encode(row)
        made = [] if root.entry is None else [
            Output(catalogue.KEYS, root.key_id.encode(), self._codec.encode(root.entry))
        ]  # fmt: skip
        return self._operations_of(row), made

    def _operations_of(self, row: Tenant) -> TenantKeys:
        """Without them nothing can be audited: what is one tenant's trouble elsewhere holds every command here."""
        try:
            return self._roots.keys_of(row)
        except TenantError as exc:
            raise WorldError(f"the operations key: {exc}", code=exc.reason_code) from None

    def _audited_under(self, state: State, command: Command, operations: TenantKeys) -> tuple[str, TenantKeys]:
        """A tenant there is has the event in its own log, under its own key; all others are in the operators' log."""
        row = state.tenant(command.tenant) if command.tenant else None
        if row is None:
            return OPERATIONS, operations
        if row.status == DELETED:  # its log goes on; who acted is told under the key that is left
            return row.tenant, operations
        try:
            return row.tenant, self._roots.keys_of(row)
        except (ErasedError, TenantError):  # likewise
            return row.tenant, operations
        except WorldError as exc:
            if exc.reason_code != KEY_REFUSED:
                raise
            return row.tenant, operations  # likewise: it never opens, and must not hold the commands of all

    def _result(self, record: Record, command: Command, said: Judgement) -> Output:
        result = CommandResult(
            command.id, command.kind, "refused" if said.code else "done", command.tenant, said.code, said.reason,
            orjson.dumps(said.body).decode(), record.offset,
        )  # fmt: skip
        return Output(catalogue.COMMAND_RESULTS, command.id.encode(), self._codec.encode(result))

    def _event(
        self,
        record: Record,
        command: Command,
        said: Judgement,
        tenant: str,
        keys: TenantKeys,
        *,
        topic: str = catalogue.AUDIT,
    ) -> Output:
        origin = Origin(self._cluster, record.topic, record.partition, record.offset)
        event = AuditEvent(
            id=digest_of("veil-command-event-v1", origin.cluster, origin.topic, origin.partition, origin.offset).hex(),
            tenant=tenant,
            time_ms=record.timestamp_ms,
            actor=actor_pseudonym(keys, command.actor),
            action=command.kind if command.kind in KINDS else "command.unknown",  # an unknown kind could be any text
            resource=said.resource,
            result="refused" if said.code else "ok",
            origin=origin,
            policy=said.policy,
            codes=() if said.code is None else (said.code,),
        )
        return Output(topic, tenant.encode(), self._codec.encode(event))

    def _failed_event(self, record: Record, command: Command, refusal: Judgement) -> tuple[Output, ...]:
        try:
            return (self._event(record, command, refusal, OPERATIONS, self._keyring.operations()),)
        except (TenantError, ErasedError, WorldError):  # without the key nobody can be named; the letter stands
            return ()


def decode_command(codec: Codec, raw: bytes | None) -> Command:
    """A record of `veil.commands`, Avro or JSON of the same fields, in which `body` may be an object. Raises RecordError."""
    if raw is None:
        raise RecordError("the record has a null value: send a command", code="null_value")
    command = codec.decode(Command, raw, trusted=False) if is_avro(raw) else _from_json(raw)
    for name, most in _FIELDS_MAX.items():
        value = getattr(command, name)
        if value is not None and not (1 <= len(value) <= most and value.isprintable()):
            raise RecordError(f"{name} must have 1 to {most} printable characters", code=INVALID)
    return command


def _from_json(raw: bytes) -> Command:
    plain = read_json(raw, what="the command", code=INVALID)
    if not isinstance(plain, dict):
        raise RecordError("the command must be a mapping of fields", code=INVALID)
    names = [field.name for field in dataclasses.fields(Command)]
    if plain.keys() - set(names):
        raise RecordError(f"the command has an unknown field; its fields are {', '.join(names)}", code=INVALID)
    body = plain.get("body", "{}")
    plain["body"] = body if isinstance(body, str) else json.dumps(body)
    for name in names:
        value = plain.get(name)
        if not isinstance(value, str) and not (name == "tenant" and value is None):
            raise RecordError(f"{name} must be text", code=INVALID)
    return Command(**plain)
