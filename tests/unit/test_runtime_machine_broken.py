"""The state machine finds runtimes that are wrong: each of these breaks one rule of the delivery, and must be caught."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.scripted_agent import GOOD
from tests.unit.scripted_broker import Fault, Reader
from tests.unit.test_runtime_machine import SETTINGS, RuntimeMachine
from veilstream.runtime import batch, kafka, lane, partitions, table, transaction
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.lane import Lane
from veilstream.runtime.partitions import Partitions
from veilstream.runtime.watchdog import Watchdog

Patch = pytest.MonkeyPatch
BUDGET = settings(SETTINGS, max_examples=300, phases=[Phase.generate], print_blob=False, report_multiple_bugs=False)


def offset_before_outputs(patch: Patch) -> None:
    """The input offset is committed in a transaction of its own, before the outputs."""
    commit = transaction.commit

    async def apart(producer: Any, **asked: Any) -> None:
        await commit(producer, **asked | {"outputs": (), "writes": {}})
        await commit(producer, **asked)

    patch.setattr(lane, "commit", apart)


def outputs_before_offset(patch: Patch) -> None:
    """The outputs are committed before the input offset."""
    commit = transaction.commit

    async def apart(producer: Any, **asked: Any) -> None:
        async def not_yet(*_: Any) -> None: ...

        with pytest.MonkeyPatch.context() as within:
            within.setattr(producer, "send_offsets_to_transaction", not_yet)
            await commit(producer, **asked)
        await commit(producer, **asked | {"outputs": (), "writes": {}})

    patch.setattr(lane, "commit", apart)


def no_fencing(patch: Patch) -> None:
    """Each owner of a partition has a transactional id of its own."""
    number = count()
    patch.setattr(partitions, "transactional_id", lambda group, source: f"{group}-{source}-{next(number)}")


def writes_applied_before_the_commit(patch: Patch) -> None:
    """Memory is ahead of the changelog while the transaction is open."""
    publish = Lane._publish

    async def early(self: Any, work: Any, next_offset: int) -> None:
        table.apply(self._part, work.writes)
        await publish(self, work, next_offset)

    patch.setattr(Lane, "_publish", early)


def restored_before_fencing(patch: Patch) -> None:
    """The changelog is read while the former owner can still add to it."""
    fence_all, early = Partitions._fence_all, Partitions._restore
    read: dict[Any, Any] = {}

    async def then_fence(self: Any, sources: Sequence[TopicPartition]) -> Any:
        read[self] = await early(self, list(sources))
        return await fence_all(self, list(sources))

    async def restored(self: Any, _: Any) -> Any:
        return read[self]

    patch.setattr(Partitions, "_fence_all", then_fence)
    patch.setattr(Partitions, "_restore", restored)


def offset_read_before_fencing(patch: Patch) -> None:
    """The committed offset is read while the former owner can still move it."""
    fence_all, starts = Partitions._fence_all, Partitions._starts
    read: dict[Any, Any] = {}

    async def then_fence(self: Any, sources: Sequence[TopicPartition]) -> Any:
        read[self] = await self._carrier.committed(sources)
        return await fence_all(self, list(sources))

    async def stale(self: Any, sources: Any, _: Any, stored: Any) -> Any:
        return await starts(self, sources, read[self], stored)

    patch.setattr(Partitions, "_fence_all", then_fence)
    patch.setattr(Partitions, "_starts", stale)


def predecessor_forgotten(patch: Patch) -> None:
    """A record that never came is not missed."""
    put = Lane.put
    patch.setattr(Lane, "put", lambda self, record, _: put(self, record, -1))


def redelivery_not_dropped(patch: Patch) -> None:
    """What was done before is done again when it comes again."""
    put = Lane.put

    def careless(self: Any, record: Any, previous: int) -> None:
        self._expected = min(self._expected, record.offset)
        self.done = min(self.done, record.offset)
        put(self, record, previous)

    patch.setattr(Lane, "put", careless)


def record_dropped_when_done_again(patch: Patch) -> None:
    """Record by record, the last one is forgotten."""
    one_by_one = batch._one_by_one

    async def short(agent: Any, records: Any, part: Any, *, again: bool) -> Any:
        return await one_by_one(agent, records[:-1] if again else records, part, again=again)

    patch.setattr(batch, "_one_by_one", short)


def sends_not_waited_for(patch: Patch) -> None:
    """The commit does not look at what became of the sends."""

    async def hurry(_: Any) -> None: ...

    patch.setattr(transaction, "_all", hurry)


def failed_commit_taken_for_done(patch: Patch) -> None:
    """A transaction that failed is passed over."""
    commit = transaction.commit

    async def optimistic(producer: Any, **asked: Any) -> None:
        try:
            await commit(producer, **asked)
        except RuntimeExit:
            producer.transaction = None

    patch.setattr(lane, "commit", optimistic)


def failed_commit_tried_again(patch: Patch) -> None:
    """A commit without an answer is done again by the same process, with a new producer: it may have taken effect."""
    publish = Lane._publish

    async def stubborn(self: Any, work: Any, next_offset: int) -> None:
        try:
            await publish(self, work, next_offset)
        except RuntimeExit:
            self.producer = await kafka.fence(
                {"broker": self.producer.broker, "owner": self.producer.owner}, self.producer.identity, 10.0
            )
            await publish(self, work, next_offset)

    patch.setattr(Lane, "_publish", stubborn)


def uncommitted_changelog(patch: Patch) -> None:
    """The table is restored from aborted transactions too."""

    def reader(options: Any) -> Any:
        return Reader(**options, isolation_level="read_uncommitted")

    patch.setattr(table, "reader", reader)


def renewed_without_a_look(patch: Patch) -> None:
    """A new producer is made without looking whether another worker has committed meanwhile."""

    async def blind(self: Any, running: Any) -> Any:
        await running.producer.stop()
        return await self._fence(running.source)

    patch.setattr(Partitions, "_renew", blind)


def idle_commit_over_work(patch: Patch) -> None:
    """What was read counts as done."""

    def look(self: Any, progress: Any, _: float) -> None:
        for source, running in self._partitions.lanes.items():
            running.advance(progress[source].position)

    patch.setattr(Watchdog, "look", look)


def world_fault_skips(patch: Patch) -> None:
    """A batch whose service is away is left out instead of held."""
    until_done = Lane._until_done

    async def impatient(self: Any, records: Any) -> None:
        async with asyncio.timeout(0.05):
            await until_done(self, records)

    async def skip(self: Any, records: Any) -> None:
        try:
            await impatient(self, records)
        except TimeoutError:
            self.done = records[-1].offset + 1

    patch.setattr(Lane, "_until_done", skip)


def writes_of_a_failed_record_kept(patch: Patch) -> None:
    """What a failed record wrote stays in the table."""
    patch.setattr(table.Versions, "drop", lambda *_: None)


BROKEN: list[Callable[[Patch], None]] = [
    offset_before_outputs,
    outputs_before_offset,
    no_fencing,
    writes_applied_before_the_commit,
    predecessor_forgotten,
    redelivery_not_dropped,
    record_dropped_when_done_again,
    sends_not_waited_for,
    failed_commit_taken_for_done,
    failed_commit_tried_again,
    uncommitted_changelog,
    renewed_without_a_look,
    idle_commit_over_work,
    world_fault_skips,
    writes_of_a_failed_record_kept,
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_runtime_is_found(broken: Callable[[Patch], None]) -> None:
    """Within its budget the machine finds an interleaving in which the broken rule shows."""

    class Broken(RuntimeMachine):
        def sabotage(self) -> None:
            broken(self.patches)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=BUDGET)


def scheduled(broken: Callable[[Patch], None] | None) -> RuntimeMachine:
    """The machine for a schedule that is written out, with the runtime as it is or with a broken one."""

    class Scheduled(RuntimeMachine):
        def sabotage(self) -> None:
            if broken is not None:
                broken(self.patches)

    return Scheduled()


def slow_heir(broken: Callable[[Patch], None] | None) -> None:
    """An owner stops in its commit; its heir, slow to fence it, waits while the owner goes on and commits after all."""

    machine = scheduled(broken)
    try:
        machine.begin((0, 0))
        machine.flow(0, [(GOOD, b"a")])
        machine.fault(0, "commit", Fault.STOP, 0)
        machine.workers[1].armed["fence"] = (Fault.STOP, 0)
        machine.rebalance((1, 1), 0)
        machine.release(0)
        machine.release(1)
        machine.one_outcome_each()
    finally:
        machine.teardown()


def test_an_heir_reads_what_its_predecessor_committed_last() -> None:
    """The schedule that finds the two below is harmless to the runtime as it is."""
    slow_heir(None)


@pytest.mark.parametrize("broken", [restored_before_fencing, offset_read_before_fencing])
def test_reading_before_fencing_is_found(broken: Callable[[Patch], None]) -> None:
    """Chance rarely comes upon this interleaving, so it is written out."""
    with pytest.raises(AssertionError):
        slow_heir(broken)


def first_start(broken: Callable[[Patch], None] | None) -> None:
    """The broker gives the first producer of an identity its epoch, and the answer is lost: it is asked again."""

    machine = scheduled(broken)
    try:
        machine.broker.append(machine.truths[0].of("in"), b"a", GOOD)
        machine.workers[0].armed["init"] = (Fault.LOST, 0)
        machine.begin((0, 0))
        machine.one_outcome_each()
    finally:
        machine.teardown()


def test_a_lost_answer_makes_no_first_start_a_second() -> None:
    """Otherwise a group without an offset would be taken for one whose offset was lost."""
    first_start(None)


def test_counting_a_lost_answer_is_found() -> None:
    """Without subtracting it the partition is refused for good."""
    with pytest.raises(AssertionError):
        first_start(lambda patch: patch.setattr(partitions, "lives", lambda producer: producer.producer_epoch))
