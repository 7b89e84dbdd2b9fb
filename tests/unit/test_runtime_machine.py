"""The real runtime against a scripted broker, in any interleaving of records, faults, crashes, zombies and rebalances.

Whatever happens, a reader of committed records sees one outcome for each record, in order, with the value an exact model
gives it; the table's changelog equals the model; the committed offset passes no record without an outcome; and once the
faults end everything is worked off. test_runtime_machine_broken.py shows that the machine finds runtimes that are wrong.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.unit.scripted_agent import (
    AWAY,
    BROKER_REFUSES,
    FLAKY,
    GOOD,
    KINDS,
    PARTITIONS,
    POISON,
    Scene,
    Truth,
    agent,
    stand_in,
)
from tests.unit.scripted_broker import Broker, Fault, Producer, State
from tests.unit.scripted_worker import Loop, Worker
from veilstream.runtime import kafka, lane

POINTS = (
    "fence init fenced restore ends changelog committed_offsets bounds seek progress step send answer offsets commit"
)
POINTS += " committed"
BUSY = "commit commit commit committed committed answer send step"
ONE = st.sampled_from((0, 1))
FEW = st.integers(1, 7)
PASSES = st.integers(0, 3)
RECORDS = st.lists(
    st.tuples(st.sampled_from((GOOD,) * 8 + KINDS), st.sampled_from((b"a", b"b"))), min_size=1, max_size=5
)
OWNERS = st.tuples(ONE, ONE)
SETTINGS = settings(
    max_examples=150,
    phases=(Phase.generate, Phase.shrink),
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


class RuntimeMachine(RuleBasedStateMachine):
    """Two workers of one group on two partitions."""

    def __init__(self) -> None:
        super().__init__()
        self.loop, self.broker, self.scene = Loop(), Broker(), Scene()
        self.generation, self.poisons, self.failed, self.begun = 0, 0, False, False
        self.patches = pytest.MonkeyPatch()
        stand_in(self.patches, self.loop)
        self.sabotage()
        self.truths = [Truth(self.broker, self.scene, partition) for partition in PARTITIONS]
        self.workers: list[Worker] = [self.worker(), self.worker()]

    def sabotage(self) -> None:
        """Where a subclass breaks the runtime."""

    def worker(self) -> Worker:
        return Worker(self.loop, self.broker, lambda worker: agent(worker, self.scene))

    # --- what happens. Hypothesis leaves many rules out of an example, so each lets records flow where it can.

    @initialize(owners=OWNERS)
    def begin(self, owners: tuple[int, int]) -> None:
        self.begun = True
        self.rebalance(owners, None)

    @rule(partition=ONE, records=RECORDS, marker=st.booleans())
    def flow(self, partition: int, records: list[tuple[bytes, bytes]], marker: bool = False) -> None:
        source = self.truths[partition].of("in")
        for kind, key in records:
            self.broker.append(source, key, kind)
        if marker:
            self.broker.append_marker(source)
        self.deliver_all()

    @rule(partition=ONE)
    @precondition(lambda self: self.poisons < 1)
    def poison(self, partition: int) -> None:
        self.poisons += 1
        self.flow(partition, [(GOOD, b"a"), (POISON, b"a"), (GOOD, b"a")])

    @rule(partition=ONE, records=RECORDS, fetched=FEW, handed=FEW)
    def flow_partly(self, partition: int, records: list[tuple[bytes, bytes]], fetched: int, handed: int) -> None:
        """Records that are fetched and not handed over stay in flight."""
        source = self.truths[partition].of("in")
        for kind, key in records:
            self.broker.append(source, key, kind)
        for worker in self.workers:
            worker.reading.fetch(source, fetched)
            worker.hand_over(handed)
        self.look()

    @rule(worker=ONE)
    def hand_over_stale(self, worker: int) -> None:
        """Records of a former generation come after all."""
        self.workers[worker].hand_over(5, stale=True)
        self.reap()

    @rule(partition=ONE, back=FEW)
    def read_again(self, partition: int, back: int) -> None:
        """Records come again, as after a seek that nobody asked for."""
        for worker in self.workers:
            worker.reading.again(self.truths[partition].of("in"), back)
        self.deliver_all()

    @rule(partition=ONE)
    def lose_one_in_flight(self, partition: int) -> None:
        """A record is fetched and never handed over; another one follows."""
        source = self.truths[partition].of("in")
        self.deliver_all()
        self.broker.append(source, b"a", GOOD)
        for worker in self.workers:
            worker.reading.fetch(source, 1)
            worker.reading.inflight.clear()
        self.flow(partition, [(GOOD, b"a")])

    @rule(partition=ONE, point=st.sampled_from(POINTS.split()), fault=st.sampled_from(Fault), passes=PASSES)
    def fault(self, partition: int, point: str, fault: Fault, passes: int) -> None:
        """Something goes wrong the next time or a little later, in whatever worker gets there."""
        self.scatter({point.replace("_", " "): (fault, passes)})
        self.flow(partition, [(GOOD, b"a"), (GOOD, b"b")])

    @rule(
        partition=ONE, records=RECORDS, point=st.sampled_from(BUSY.split()), fault=st.sampled_from(Fault), passes=PASSES
    )
    def fault_in_work(
        self, partition: int, records: list[tuple[bytes, bytes]], point: str, fault: Fault, passes: int
    ) -> None:
        self.fault(partition, point, fault, passes)
        self.flow(partition, records)

    @rule(
        partition=ONE,
        point=st.sampled_from([*BUSY.split(), "fence", "fence"]),
        passes=PASSES,
        stopped=st.sampled_from((None, "fence", "fenced")),
        goes_on=st.booleans(),
    )
    def zombie(self, partition: int, point: str, passes: int, stopped: str | None, goes_on: bool) -> None:
        """A worker stops in its work and another takes over, slowly or at once; now or later both go on."""
        if point == "fence":  # which it comes to in its work when an output was refused for its size
            self.scatter({point: (Fault.STOP, 0)})
            self.flow(partition, [(BROKER_REFUSES, b"a")])
        else:
            self.fault(partition, point, Fault.STOP, passes)
        self.scatter({})
        for owner, worker in enumerate(self.workers):
            if self.truths[partition].of("in") in worker.partitions.lanes:
                if stopped is not None:
                    self.workers[1 - owner].armed[stopped] = (Fault.STOP, 0)
                self.rebalance((1 - owner, 1 - owner), owner)
                break
        self.deliver_all()
        if goes_on:
            for number in (0, 1):
                self.release(number)

    @rule(worker=ONE)
    def release(self, worker: int) -> None:
        """What was stopped goes on."""
        self.workers[worker].release()
        self.reap()
        self.deliver_all()

    @rule(partition=ONE, service=st.sampled_from(("up", "away", "broken")))
    def service(self, partition: int, service: str) -> None:
        self.scene.away, self.scene.broken = service == "away", service == "broken"
        self.scene.was_broken |= self.scene.broken
        self.flow(partition, [(AWAY, b"a"), (FLAKY, b"b"), (GOOD, b"a")])
        self.time_passes(0.2)

    @rule(seconds=st.sampled_from((0.2, 5.0, 11.0, 31.0)))
    def time_passes(self, seconds: float) -> None:
        self.loop.now += seconds
        self.loop.settle()
        self.reap()

    @rule()
    def look(self) -> None:
        for worker in self.workers:
            worker.look()
        self.reap()

    @rule(worker=ONE, owners=OWNERS)
    def crash(self, worker: int, owners: tuple[int, int]) -> None:
        if not self.workers[worker].dead:
            self.workers[worker].crash()
        self.rebalance(owners, None)

    @rule(worker=ONE, owners=OWNERS)
    def terminate(self, worker: int, owners: tuple[int, int]) -> None:
        """SIGTERM: it lets go in order and leaves."""
        if not self.workers[worker].dead and self.let_go(self.workers[worker]):
            self.workers[worker].crash()
        self.rebalance(owners, None)

    @rule(owners=OWNERS, silent=st.sampled_from((None, 0, 1)))
    def rebalance(self, owners: tuple[int, int], silent: int | None) -> None:
        """Partitions move. The silent one, or one that does not let go in time, hears nothing of it and goes on."""
        members = [index for index in (0, 1) if index != silent]
        for index in members:
            if self.workers[index].dead:
                self.workers[index] = self.worker()
        members = [index for index in members if self.let_go(self.workers[index])]
        self.generation += 1
        for index in members:
            mine = [p for p, owner in zip(PARTITIONS, owners, strict=True) if owner in (index, silent)]
            self.workers[index].take_over([self.truths[partition].of("in") for partition in mine], self.generation)
            for partition in mine:
                self.scene.unclean[partition, self.truths[partition].committed] += 1
        self.reap()

    @rule(partition=ONE, what=st.sampled_from(("expires", "markers come", "compacted")))
    def broker_acts(self, partition: int, what: str) -> None:
        """It aborts what is open for too long, writes the markers of what is decided, or compacts."""
        identity = self.identity(partition)
        match what:
            case "expires" if identity in self.broker.epochs:
                self.broker.expire(identity)
            case "markers come":
                self.broker.finish(identity)
            case "compacted":
                self.broker.compact(self.truths[partition].of("changelog"))

    def scatter(self, faults: dict[str, tuple[Fault, int]]) -> None:
        for worker in self.workers:
            worker.armed = dict(faults)

    def deliver_all(self) -> None:
        for worker in self.workers:
            for truth in self.truths:
                worker.reading.fetch(truth.of("in"), 100)
            worker.hand_over(200)
        self.reap()

    def let_go(self, worker: Worker) -> bool:
        """An orderly revocation; whether it ended, so that others may have the partitions."""
        return worker.let_go().done() and not worker.dead

    def identity(self, partition: int) -> str:
        return kafka.transactional_id("machine", self.truths[partition].of("in"))

    def reap(self) -> None:
        """A process that decides to end is gone at once, like one that was killed."""
        for worker in self.workers:
            if worker.ended:
                worker.crash()

    # --- what holds

    @invariant()
    def one_outcome_each(self) -> None:
        self.failed, failed = True, self.failed
        tables = [truth.check() for truth in self.truths]
        for worker in self.workers:
            for source, running in worker.partitions.lanes.items():
                self._memory(running, tables[source.partition])
        self.failed = failed

    def _memory(self, running: lane.Lane[bytes], table: dict[bytes, bytes]) -> None:
        """The owner's memory is what is committed: not ahead while a transaction is open, not behind once it is told."""
        producer = running.producer
        assert isinstance(producer, Producer)
        told = producer.transaction is None or producer.transaction.state is State.OPEN
        if told and self.broker.epochs[producer.identity] == producer.producer_epoch:
            assert running._part == table, f"memory holds {running._part}, the changelog {table}"

    def teardown(self) -> None:
        try:
            if self.begun and not self.failed:
                self.faults_end()
        finally:
            for worker in self.workers:
                if not worker.dead:
                    worker.crash()
            self.loop.close()
            self.patches.undo()

    def faults_end(self) -> None:
        """Everything is worked off, then a drain leaves nothing open."""
        self.scene.away = self.scene.broken = False
        for _ in range(4 + 5 * self.poisons):
            self.calm_down()
            self.work()
            if self.complete:
                break
        for partition in PARTITIONS:
            self.flow(partition, [(GOOD, b"a")])
        before = list(self.workers)
        self.work()
        self.one_outcome_each()
        assert self.complete, [truth.committed for truth in self.truths]
        assert not any(worker.dead for worker in before), "a process ended without a fault"
        assert all(worker.let_go().done() for worker in self.workers), "a drain does not end"
        assert not any(worker.ending.reached for worker in self.workers), "a drain failed"
        assert not self.broker.unfinished, "a drain leaves a transaction open"

    def calm_down(self) -> None:
        for worker in self.workers:
            worker.armed.clear()
            worker.release()
        self.time_passes(31.0)
        self.rebalance((0, 1), None)  # one that did not let go in time has to be rid of what it still does
        self.rebalance((0, 1), None)

    def work(self) -> None:
        """Deliver all; where that is not enough, look until a stall is noticed."""
        for seconds in (0.2, 0.2, 31.0, 31.0):
            self.deliver_all()
            self.deliver_all()
            self.look()
            if self.complete:
                break
            self.time_passes(seconds)

    @property
    def complete(self) -> bool:
        return all(truth.complete for truth in self.truths)


def test_whatever_happens_each_record_has_one_outcome() -> None:
    """No interleaving loses, doubles or reorders an outcome, or leaves table, memory and offsets apart."""
    run_state_machine_as_test(RuntimeMachine, settings=SETTINGS)
