"""From records to outcomes: whose fault a failure is, and that neighbours of a failed record are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from veilstream.contracts.errors import ErasedError, Fault, RecordError, TenantError, VeilError, WorldError
from veilstream.contracts.step import Done, Failed, Failure, Item, Outcome, Output, Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.batch import judge
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.kafka import OUTPUT_BYTES_MAX

Items = Sequence[Item[bytes]]


def record(offset: int, value: bytes = b"v") -> Record:
    return Record("in", 0, offset, 0, b"k", value)


def records(*values: bytes) -> list[Record]:
    return [record(offset, value) for offset, value in enumerate(values)]


def decode(raw: Record) -> bytes:
    match raw.value:
        case b"refused":
            raise RecordError("not a request", code="undecodable")
        case b"no schema":
            raise WorldError("schema not known yet", code="unknown_schema")
        case b"bug in decode":
            raise ValueError("secret content")
    assert raw.value is not None
    return raw.value


def dead(raw: Record, failure: Failure) -> list[Output]:
    code = f"{failure.fault.value}/{failure.code}/{failure.attempts}"
    return [Output("dead", raw.key, f"{raw.offset} {code}".encode())]


def echo(item: Item[bytes]) -> Done:
    return Done((Output("out", item.record.key, item.value),))


def agent(step: Callable[[Items], Any], on_failure: Any = dead) -> Agent[bytes]:
    return Agent(name="t", group="g", topics=("in",), decode=decode, step=step, on_failure=on_failure)


def each(step: Callable[[Item[bytes]], Outcome]) -> Callable[[Items], list[Outcome]]:
    return lambda items: [step(item) for item in items]


async def published(step: Callable[[Items], Any], *values: bytes) -> list[bytes]:
    work = await judge(agent(step), records(*values), {})
    return [output.value or b"" for output in work.outputs]


async def test_each_record_has_its_outcome_in_order() -> None:
    """A batch's outputs keep the order of its records."""
    assert await published(each(echo), b"a", b"b", b"c") == [b"a", b"b", b"c"]


async def test_a_step_may_be_asynchronous() -> None:
    """`async def` steps are awaited."""

    async def step(items: Items) -> list[Outcome]:
        return [echo(item) for item in items]

    assert await published(step, b"a") == [b"a"]


@pytest.mark.parametrize(
    ("value", "answer"),
    [(b"refused", b"1 record/undecodable/1"), (b"bug in decode", b"1 us/internal_error/1")],
)
async def test_a_record_that_cannot_be_decoded_fails_alone(value: bytes, answer: bytes) -> None:
    """Undecodable: a dead letter for the record, the next record goes on, the step sees neither."""
    assert await published(each(echo), b"a", value, b"c") == [b"a", answer, b"c"]


async def test_a_broken_connection_is_tried_again() -> None:
    """A connection that comes back within three more tries costs the record nothing; neighbours keep their order."""
    tries: list[bytes] = []

    def step(items: Items) -> list[Outcome]:
        tries.extend(item.value for item in items if item.value == b"bad")
        if len(tries) < 5 and any(item.value == b"bad" for item in items):
            raise ConnectionResetError
        return [echo(item) for item in items]

    assert await published(step, b"a", b"bad", b"c") == [b"a", b"bad", b"c"]
    assert len(tries) == 5  # together once, alone once, three times more


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (RecordError("no"), b"1 record/invalid_record/2"),
        (TenantError("no key"), b"1 tenant/tenant_unavailable/2"),
        (ErasedError("gone"), b"1 erased/erased/2"),
        (VeilError("ours"), b"1 us/internal_error/2"),
        (ValueError("secret content"), b"1 us/internal_error/2"),
        (TimeoutError(), b"1 us/internal_error/5"),
        (ConnectionResetError("secret peer"), b"1 us/internal_error/5"),
        (OSError("no such device"), b"1 us/internal_error/2"),
    ],
    ids=lambda case: type(case).__name__,
)
async def test_a_step_that_raises_is_done_again_record_by_record(error: Exception, answer: bytes) -> None:
    """The one record that raises fails closed; its neighbours are done."""

    def step(items: Items) -> list[Outcome]:
        if any(item.value == b"bad" for item in items):
            raise error
        return [echo(item) for item in items]

    assert await published(step, b"a", b"bad", b"c") == [b"a", answer, b"c"]


async def test_a_single_record_is_not_done_twice() -> None:
    """A batch of one that raises fails at once: doing it again would change nothing."""
    calls = 0

    def step(items: Items) -> list[Outcome]:
        nonlocal calls
        calls += 1
        raise ValueError

    assert await published(step, b"a") == [b"0 us/internal_error/1"]
    assert calls == 1


@pytest.mark.parametrize("wrong", [0, 1, 4], ids=["none", "too few", "too many"])
async def test_a_wrong_number_of_outcomes_is_our_fault(wrong: int) -> None:
    """No outcome is guessed: the batch is done again, and a record that still has none or several fails closed."""

    def step(items: Items) -> list[Outcome]:
        return [echo(items[0])] * wrong if len(items) > 1 else [echo(items[0])]

    assert await published(step, b"a", b"b") == [b"a", b"b"]

    def never(items: Items) -> list[Outcome]:
        return []

    assert await published(never, b"a", b"b") == [b"0 us/internal_error/2", b"1 us/internal_error/2"]


async def test_something_else_than_an_outcome_is_our_fault() -> None:
    """A step that returns None for a record does not lose it."""
    assert await published(lambda items: [None for _ in items], b"a") == [b"0 us/internal_error/1"]


@pytest.mark.parametrize("value", [b"no schema", b"world raised", b"world failed", b"fault of the world"])
async def test_the_worlds_fault_leaves_the_batch_undone(value: bytes) -> None:
    """`WorldError` from decode or step, or a `Failed` of the world, holds the partition: no record gets an outcome."""

    def step(items: Items) -> list[Outcome]:
        for item in items:
            if item.value == b"world raised":
                raise WorldError("away")
            if item.value == b"fault of the world":
                error = VeilError("away")
                error.fault = Fault.WORLD  # type: ignore[misc]
                raise error
        failure = Failed(Failure(Fault.WORLD, "vault_away", "the vault is away"))
        return [failure if item.value == b"world failed" else echo(item) for item in items]

    with pytest.raises(WorldError):
        await judge(agent(step), records(b"a", value), {})


async def test_the_world_goes_away_while_records_are_done_one_by_one() -> None:
    """A hold in the second try is a hold, not a failed record."""

    def step(items: Items) -> list[Outcome]:
        if len(items) > 1:
            raise ValueError
        raise WorldError("away")

    with pytest.raises(WorldError):
        await judge(agent(step), records(b"a", b"b"), {})


async def test_a_failed_record_leaves_no_write_and_no_reader_of_it() -> None:
    """A `Failed` record's writes are dropped, and what later records of the batch saw of them is done again."""

    def step(items: Items) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for item in items:
            item.table[b"n"] = str(int(item.table.get(b"n", b"0")) + 1).encode()
            if item.value == b"fail":
                outcomes.append(Failed(Failure(Fault.RECORD, "no", "no")))
            else:
                outcomes.append(Done((Output("out", None, item.table[b"n"]),)))
        return outcomes

    work = await judge(agent(step), records(b"a", b"fail", b"c"), {b"n": b"5"})
    assert [output.value for output in work.outputs] == [b"6", b"1 record/no/1", b"7"]
    assert work.writes == {b"n": b"7"}


async def test_an_output_that_no_broker_takes_is_the_records_fault() -> None:
    """Too large to publish: `output_too_large` for that record before any transaction begins."""

    def step(item: Item[bytes]) -> Done:
        return Done((Output("out", None, b"x" * OUTPUT_BYTES_MAX if item.value == b"big" else item.value),))

    assert await published(each(step), b"a", b"big") == [b"a", b"1 record/output_too_large/1"]


def raising(_: Record, __: Failure) -> list[Output]:
    raise KeyError("secret content")


@pytest.mark.parametrize(
    ("on_failure", "said"),
    [(raising, "raised KeyError at"), (lambda *_: [], "gave no output"), (lambda *_: None, "raised TypeError at")],
    ids=["raises", "gives nothing", "gives None"],
)
async def test_nobody_answering_for_a_record_ends_the_process(on_failure: Any, said: str) -> None:
    """`on_failure` that raises or returns nothing: exit before the record is committed, no content in the reason."""
    with pytest.raises(RuntimeExit, match=said) as caught:
        await judge(agent(each(echo), on_failure), records(b"a", b"refused"), {})
    assert "secret" not in str(caught.value)


async def test_labels_and_failures_are_counted() -> None:
    """Metrics count each record once, by its outcome."""
    work = await judge(agent(each(lambda item: Done(label=item.value.decode()))), records(b"a", b"a", b"refused"), {})
    assert work.labels == {"a": 2, "failed": 1}
    assert [failure.code for failure in work.failures] == ["undecodable"]


async def test_rows_for_the_sink_keep_their_order() -> None:
    """A `Done` may carry rows for the agent's external store."""
    work = await judge(agent(each(lambda item: Done(rows=(item.value, 1)))), records(b"a", b"b"), {})
    assert work.rows == [b"a", 1, b"b", 1]
