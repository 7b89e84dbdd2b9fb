"""`veil ledger` on a real Kafka: on a chain played by hand it names what is wrong, and tells lost from in work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from tests.pipeline.chain import until
from tests.pipeline.ledger_script import Script, script
from veilstream.client.kafka import started_consumer
from veilstream.client.ledger import Taken, read_to, take
from veilstream.contracts.errors import ClientError

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def played(kafka: str) -> AsyncIterator[Script]:
    """A chain of this test's own."""
    async with script(kafka) as made:
        yield made


async def of(played: Script, *, wait_s: float = 0.0, since: timedelta = timedelta(minutes=5)) -> Taken:
    return await take(played, datetime.now(UTC) - since, wait_s=wait_s, watched=played.watched)


def places(entries: Any) -> list[tuple[int, int, int]]:
    return [(entry.origin.partition, entry.origin.offset, entry.revision) for entry in entries]


async def test_each_stage_that_has_not_passed_keeps_a_record_in_work(played: Script) -> None:
    """A record that every group has skipped is in work while one stage is behind, and lost when the last has passed."""
    skipped = [await played.request(partition) for partition in (0, 1)]
    await played.judged(played.verdict(await played.request()))
    stages = [(played.watched.gate, played.watched.requests), (played.watched.gate, played.watched.redrive)]
    stages += [(stage.group, stage.topic) for stage in played.watched.stages]
    for group, topic in stages:
        taken = await of(played)
        records = taken.statement.records
        assert (records.accepted, records.verdicts, records.in_work, records.lost) == (3, 1, 2, 0)
        assert taken.statement.exact
        assert taken.standing == f"{group} on {topic}"
        await played.commit(group, topic)
    taken = await of(played)
    assert (taken.standing, taken.statement.exact) == (None, False)
    assert places(taken.statement.records.gaps) == [(origin.partition, origin.offset, 0) for origin in skipped]


async def test_records_that_came_after_the_gate_s_offset_are_in_work(played: Script) -> None:
    """Only what is below the committed offset has passed; the near miss is the record just below it."""
    lost = await played.request()
    await played.all_passed()
    await played.request()
    taken = await of(played)
    assert places(taken.statement.records.gaps) == [(0, lost.offset, 0)]
    assert (taken.statement.records.in_work, taken.standing) == (
        1,
        f"{played.watched.gate} on {played.watched.requests}",
    )


async def test_an_open_transaction_hides_an_outcome_and_loses_nothing(played: Script) -> None:
    """Every offset is committed, and the verdict's transaction has no end on the topic yet: in work; then exact."""
    async with played.transaction() as producer:
        await played.judged(played.verdict(await played.request()), producer=producer)
        await played.all_passed()
        taken = await of(played)
        records = taken.statement.records
        assert (records.verdicts, records.in_work, records.lost) == (0, 1, 0)
        assert taken.standing is not None and "transactions that are open" in taken.standing
    taken = await of(played, wait_s=60)
    assert (taken.statement.records.verdicts, taken.statement.exact, taken.standing) == (1, True, None)


async def test_one_empty_poll_does_not_end_a_reading(played: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its deadline it still waits for what is on its way, as a slow broker or a short transaction makes it."""
    partition, taken, polls = TopicPartition(played.watched.verdicts, 0), [], []
    consumer = await started_consumer(played.options)
    getmany = consumer.getmany

    async def counted(**options: Any) -> Any:
        polls.append(await getmany(**options))
        return polls[-1]

    async def sink(record: Any) -> None:
        taken.append(record.offset)

    async def polled() -> bool:
        return len(polls) >= 3

    monkeypatch.setattr(consumer, "getmany", counted)
    try:
        async with played.transaction() as producer:
            await played.put(partition.topic, producer=producer)
            reading = asyncio.create_task(read_to(consumer, {partition: 0}, {partition: 1}, sink, time.monotonic()))
            await until(polled, timeout_s=30, what="three polls that are empty")
        assert (await reading, taken) == ({partition: 1}, [0])
    finally:
        await consumer.stop()


async def test_an_open_transaction_between_two_agents_is_a_stage_not_passed(played: Script) -> None:
    """The gate's offset can be seen committed before its outputs can: the next group has read all there is to read."""
    stage = played.watched.stages[0]
    await played.request()
    async with played.transaction() as producer:
        await played.put(stage.topic, producer=producer)
        await played.all_passed()
        taken = await of(played)
        assert (taken.statement.records.in_work, taken.statement.records.lost) == (1, 0)
        assert taken.standing == f"{stage.group} on {stage.topic}"


async def test_waiting_ends_when_the_last_stage_has_passed(played: Script) -> None:
    """With --wait the answer comes when there is one, and not at the end of the time."""
    await played.request()
    waiting = asyncio.create_task(of(played, wait_s=180))
    began = time.monotonic()
    await played.all_passed()
    taken = await waiting
    assert time.monotonic() - began < 120
    assert (taken.standing, taken.statement.records.lost) == (None, 1)


async def test_a_second_verdict_is_named_and_whether_it_differs(played: Script) -> None:
    """Equal bytes and a differing one are told apart; letters beside a verdict, and refusals, are no doubles."""
    fine, equal, differs, refused, dead, attached = [await played.request() for _ in range(6)]
    for origin in (fine, equal, differs, attached):
        await played.judged(played.verdict(origin))
    await played.judged(played.verdict(refused, decision="refused"))
    for origin in (dead, attached):
        await played.letter(origin)
    await played.all_passed()
    taken = await of(played)
    records = taken.statement.records
    assert (records.verdicts, records.refusals, records.dead_letters, taken.statement.letters) == (4, 1, 1, 2)
    assert taken.statement.exact
    await played.judged(played.verdict(equal), audited=False)
    await played.judged(played.verdict(differs, confidence=0.1), audited=False)
    records = (await of(played)).statement.records
    assert places(records.doubled) == [(0, equal.offset, 0), (0, differs.offset, 0)]
    assert (records.doubles, records.differing) == (2, 1)


async def test_a_verdict_without_its_audit_event_is_named(played: Script) -> None:
    """And one with two."""
    silent, twice = [await played.request() for _ in range(2)]
    await played.judged(played.verdict(silent), audited=False)
    await played.judged(played.verdict(twice))
    await played.all_passed()
    taken = await of(played)
    assert (places(taken.statement.audit.gaps), taken.statement.exact) == ([(0, silent.offset, 0)], False)
    await played.judged(played.verdict(silent))
    await played.judged(played.verdict(twice))
    assert places((await of(played)).statement.audit.doubled) == [(0, twice.offset, 0)]


async def test_a_redrive_wants_a_verdict_of_its_own(played: Script) -> None:
    """Revision 1 is in work until veil.redrive has passed the gate and the chain, then lost; its verdict makes it exact."""
    origin = await played.request()
    await played.letter(origin)
    await played.all_passed()
    await played.redriven(origin, 1)
    taken = await of(played)
    assert (taken.statement.records.in_work, taken.statement.records.lost) == (1, 0)
    await played.all_passed()
    assert places((await of(played)).statement.records.gaps) == [(0, origin.offset, 1)]
    await played.judged(played.verdict(origin, 1))
    records = (await of(played)).statement.records
    assert (records.accepted, records.dead_letters, records.verdicts, records.exact) == (2, 1, 1, True)


async def test_outcomes_of_no_committed_input_are_unknown(played: Script) -> None:
    """A verdict on a record whose transaction was aborted answers for nothing."""
    with contextlib.suppress(ZeroDivisionError):
        async with played.transaction() as producer:
            aborted = await played.put(played.watched.requests, producer=producer)
            raise ZeroDivisionError
    await played.judged(played.verdict(await played.request()))
    await played.judged(played.verdict(aborted))
    await played.all_passed()
    records = (await of(played)).statement.records
    assert (records.accepted, records.verdicts, records.unknown, records.exact) == (1, 1, 1, False)


async def test_a_window_that_retention_has_cut_is_refused(played: Script) -> None:
    """What expired would look lost; a window that begins later is taken."""
    first, second = [await played.request() for _ in range(2)]
    for origin in (first, second):
        await played.judged(played.verdict(origin))
    await played.all_passed()
    admin = AIOKafkaAdminClient(**played.options)
    await admin.start()
    await admin.delete_records({TopicPartition(played.watched.verdicts, 0): RecordsToDelete(1)})
    await admin.close()
    with pytest.raises(
        ClientError, match=rf"before the log of {played.watched.verdicts}\[0\] does.*--since (\S+)"
    ) as refused:
        await of(played)
    later = datetime.fromisoformat(str(refused.value).rsplit(" ", 1)[1])
    assert (await take(played, later, watched=played.watched)).statement.records.accepted == 0
