"""What keeps the policy agent going for years: old rows go, one key holds nobody else, a missing right shows at start."""

# ruff: noqa: F811 (fixtures of another file)
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agents import wiring
from agents.ingest.admit.step import make_on_failure as admit_on_failure
from agents.policy.app import BATCH_RECORDS, build
from tests.unit.ingest_world import World
from tests.unit.policy_desk import CODEC
from tests.unit.test_policy_dead_letters import FAILURE, ask, asked, gated, letter_in, of_admit, of_gate, world  # noqa: F401
from veilstream.client.dead_letters import _dispositions
from veilstream.contracts import catalogue
from veilstream.contracts.errors import WorldError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Disposition
from veilstream.contracts.step import Record
from veilstream.ingest.limits import MAX_VALUE_BYTES
from veilstream.keys.service import make_master_key
from veilstream.policy.state import disposition_key
from veilstream.policy.upkeep import KEPT_MS, LOOKED_AT, ROUND_MS, Upkeep
from veilstream.policy.view import PolicyView
from veilstream.runtime import engine
from veilstream.settings import Settings

NOW_MS = 10 * KEPT_MS


def rows(*changed_ms: int) -> dict[bytes, bytes]:
    """A row of each time."""
    origins = [Origin("c", "veil.requests", 0, number) for number in range(len(changed_ms))]
    made = [
        Disposition(origin, 0, "redriven", "ab", at_ms, 0) for origin, at_ms in zip(origins, changed_ms, strict=True)
    ]
    return {disposition_key(row.origin): CODEC.encode(row) for row in made}


def test_rows_older_than_any_letter_are_deleted_and_no_others() -> None:
    """To the millisecond; rows of other kinds and of later releases are left alone."""
    table = rows(NOW_MS - KEPT_MS - 1, NOW_MS - KEPT_MS, NOW_MS, 0)
    there = [*table]
    table |= {b"tenant/acme": b"x", b"dead-letter/of/a/later": b"release"}
    assert Upkeep(CODEC).outlived(table, NOW_MS) == [there[0], there[3]]


def test_a_command_looks_at_few_rows_and_the_next_goes_on() -> None:
    """All are gone after enough commands; then a round rests for an hour of broker time."""
    table, upkeep, rounds = rows(*[0] * (3 * LOOKED_AT - 1)), Upkeep(CODEC), 0
    while table:
        gone = upkeep.outlived(table, NOW_MS + rounds)
        assert 0 < len(gone) <= LOOKED_AT
        for key in gone:
            del table[key]
        rounds += 1
    assert rounds == 3
    table = rows(0)
    assert upkeep.outlived(table, NOW_MS + ROUND_MS - 1) == []
    assert len(upkeep.outlived(table, NOW_MS + ROUND_MS)) == 1


def test_a_row_that_went_meanwhile_is_passed_over() -> None:
    """A batch that is done again finds the table as it was, the cursor further on."""
    table, upkeep = rows(*[0] * (LOOKED_AT + 1)), Upkeep(CODEC)
    assert len(upkeep.outlived(table, NOW_MS)) == LOOKED_AT
    assert upkeep.outlived({}, NOW_MS) == []


def test_a_command_about_letters_deletes_old_rows_and_no_other_command_does(asked: World) -> None:
    """Its own row stays; a refused command writes nothing."""
    old = rows(-KEPT_MS)  # the desk's clock begins at 1 s
    (key,) = old
    asked.desk.table.update(old)
    asked.desk.ask("policy.list")
    assert ask(asked, "dlq.discard", of_gate(asked), offset=42).code == "letter_gone"
    assert key in asked.desk.table
    assert ask(asked, "dlq.discard", of_gate(asked)).code is None
    assert key not in asked.desk.table
    assert disposition_key(Origin("cluster-1", "veil.requests", 0, 7)) not in old


def test_followers_pass_over_a_deleted_row() -> None:
    """It counts as read."""
    view = PolicyView(CODEC)
    view.apply(*next(iter(rows(0).items())), 11)
    view.apply(next(iter(rows(0))), None, 12)
    assert (view.state_offset, view._rows) == (12, {})


async def test_a_list_takes_deleted_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is it unreadable, nor is what stood there before still told."""
    (key, value), (other, kept) = rows(0, 1).items()
    records = [
        Record(catalogue.STATE, 0, n, 1, k, v) for n, (k, v) in enumerate([(key, value), (other, kept), (key, None)])
    ]

    async def read(*_: Any) -> Any:
        for record in records:
            yield record

    class Decoder:
        async def record(self, cls: Any, raw: bytes | None) -> Any:
            return CODEC.decode(cls, raw)

    class Client:
        async def decoder(self) -> Decoder:
            return Decoder()

    monkeypatch.setattr("veilstream.client.dead_letters.read", read)
    monkeypatch.setattr("veilstream.client.dead_letters.assign", lambda *_: None)
    found, unreadable = await _dispositions(Client(), None, {}, {})  # type: ignore[arg-type]
    assert ([*found], unreadable) == ([other], 0)


KEY_COMMANDS = ["dlq.redrive", "dlq.discard"]


@pytest.mark.parametrize("kind", KEY_COMMANDS)
def test_a_wrapped_key_that_never_opens_holds_nobody(asked: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs the key is refused, all is audited in the tenant's log under the key that is left; the next command goes on."""
    letter = of_admit(asked)
    spoil(asked, monkeypatch, "key_service_refused")
    result = ask(asked, kind, letter)
    assert result.code == ("key_service_refused" if kind == "dlq.redrive" else None)
    assert asked.desk.events()[-1].tenant == "acme"
    assert asked.desk.ask("tenant.create", "other").code is None


@pytest.mark.parametrize("kind", KEY_COMMANDS)
def test_a_key_service_that_is_away_holds_the_commands(
    asked: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back: nothing is refused for it."""
    letter = of_admit(asked)
    spoil(asked, monkeypatch, "service_unavailable")
    with pytest.raises(WorldError):
        ask(asked, kind, letter)


def spoil(world: World, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The key service opens no key of acme any more."""
    by_id = world.ring.by_id

    def refusing(key_id: str, tenant: str) -> Any:
        if tenant == "acme":
            raise WorldError("no", code=code)
        return by_id(key_id, tenant)

    monkeypatch.setattr(world.ring, "by_id", refusing)
    monkeypatch.setattr(world.desk.agent._roots, "_keyring", world.ring)
    world.desk.agent._roots._made.clear()


@pytest.mark.parametrize(("numbers", "code"), [(100, None), (900, "redrive_too_large")])
def test_a_request_that_grew_beyond_the_gates_limit_keeps_its_redrive(
    asked: World, numbers: int, code: str | None
) -> None:
    """1e15 is written out as 1000000000000000.0: what the gate would refuse is refused before, and the letter stays open."""
    filling = b"null," * (MAX_VALUE_BYTES // 5 - 1_100)
    value = b'{"tenant":"acme","document":{"a":[' + filling + b",".join([b"1e15"] * numbers) + b"]}}"
    assert len(value) < MAX_VALUE_BYTES
    record = Record(catalogue.GATED, 1, 99, 9_999, b"acme", CODEC.encode(gated(asked, value)))
    letter = letter_in(admit_on_failure(asked.admit())(record, FAILURE))
    before = dict(asked.desk.table)
    assert ask(asked, "dlq.redrive", letter).code == code
    assert (asked.desk.table == before) is (code is not None)


def test_the_right_to_read_letters_is_asked_for_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing one ends the start with its name, instead of holding all commands at the first look."""
    agent, asked_for = policy(tmp_path, monkeypatch), list[set[str]]()

    class Stop(Exception):  # noqa: N818
        pass

    async def transactions(*_: Any) -> None:
        pass

    async def rights(*_: Any, reads: set[str], **__: Any) -> None:
        asked_for.append(reads)
        raise Stop

    monkeypatch.setattr(engine, "require_transactions", transactions)
    monkeypatch.setattr(engine, "require_rights", rights)
    with pytest.raises(Stop):
        asyncio.run(engine._start(agent, Settings(data_dir=tmp_path), None))  # type: ignore[arg-type]
    assert asked_for[0] >= {catalogue.DEAD_LETTERS, catalogue.COMMANDS, catalogue.STATE}


@pytest.mark.parametrize(("setting", "taken"), [(500, BATCH_RECORDS), (4, 4)])
async def test_a_batch_of_commands_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: int, taken: int
) -> None:
    """Each may bring a letter of 3 MiB: the agent's bound holds where the setting's is wider, and only there."""
    agent = policy(tmp_path, monkeypatch)
    made = engine.EngineApp(agent, Settings(data_dir=tmp_path, batch_records=setting), Any, Any)  # type: ignore[arg-type]
    assert made.partitions._limits.batch_records == taken


def policy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The agent as it is wired."""
    make_master_key(folder / "keys")
    monkeypatch.setenv("VEIL_KEYS_DIR", str(folder / "keys"))
    monkeypatch.setattr(wiring, "cluster_id", lambda _: "c1")
    monkeypatch.setattr(wiring, "home_of", lambda *_: lambda _: 0)
    return build(Settings(data_dir=folder))
