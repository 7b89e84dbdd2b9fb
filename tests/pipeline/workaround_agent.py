"""runtime_agent with workarounds taken out: `WITHOUT=name,name python -m tests.pipeline.workaround_agent`.

REMOVE has a function for each name in the WORKAROUNDS of the runtime's modules, and some for second lines of defence, which
catch what gets through when a workaround fails. tests/unit/test_workaround_catalogue.py holds it to that.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import faust
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaConnectionError, NotCoordinatorForGroupError
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from faust.tables.recovery import Recovery

from tests.pipeline import runtime_agent
from veilstream.contracts.step import Record
from veilstream.runtime import faust_app, faust_consumer, header_names, lane, partitions
from veilstream.runtime.app import run
from veilstream.runtime.partitions import Committed


def take_out_of_conf(*names: str) -> None:
    """faust.App is made without these arguments."""
    original = faust.App.__init__

    def init(self: Any, *args: Any, **conf: Any) -> None:
        original(self, *args, **{name: value for name, value in conf.items() if name not in names})

    faust.App.__init__ = init


def faust_settings() -> None:
    """Settings of Faust that ours do not name: FAUST="name=seconds name=seconds"."""
    original = faust.App.__init__
    ours = {name: float(value) for name, value in (pair.split("=") for pair in os.environ.get("FAUST", "").split())}

    def init(self: Any, *args: Any, **conf: Any) -> None:
        original(self, *args, **{**conf, **ours})

    faust.App.__init__ = init


def watch_queues(file: Path) -> None:
    """The file grows with the longest queue a lane has had: a byte a record."""
    original, longest = lane.Lane.put, [0]

    def put(self: Any, record: Record, previous: int) -> None:
        original(self, record, previous)
        if self.queued > longest[0]:
            with file.open("ab") as out:
                out.write(b"." * (self.queued - longest[0]))
            longest[0] = self.queued

    lane.Lane.put = put  # type: ignore[method-assign]


def acks() -> None:
    """Faust marks a record as done when its event leaves the stream."""
    original = faust.App.topic

    def topic(self: Any, *args: Any, **options: Any) -> Any:
        return original(self, *args, **{**options, "acks": True})

    faust.App.topic = topic


def commit() -> None:
    del faust_consumer.Consumer.commit


def isolation() -> None:
    original = faust_consumer.ConsumerThread._create_worker_consumer

    def create(self: Any, transport: Any) -> Any:
        consumer = original(self, transport)
        consumer._isolation_level = "read_uncommitted"
        return consumer

    faust_consumer.ConsumerThread._create_worker_consumer = create  # type: ignore[method-assign]


def handing_out() -> None:
    """Faust's own loop, which looks at its own set of active partitions."""
    del faust_consumer.Consumer._wait_next_records
    del faust_consumer.Consumer._drain_messages
    del faust_consumer.Consumer.getmany


def pause() -> None:
    """Faust's own pausing."""

    def pause(self: Any, source: Any) -> None:
        self._app.consumer.pause_partitions([faust_consumer.ensure_TP(source)])

    def resume(self: Any, source: Any) -> None:
        self._app.consumer.resume_partitions([faust_consumer.ensure_TP(source)])

    faust_consumer.Reading.pause = pause  # type: ignore[method-assign]
    faust_consumer.Reading.resume = resume  # type: ignore[method-assign]


def wake() -> None:
    faust_consumer.ConsumerThread._wake = lambda *_: None  # type: ignore[method-assign]


def none_wanted() -> None:
    """An empty set is false again."""
    faust_consumer.Wanted = set  # type: ignore[misc,assignment]


def recovery_order() -> None:
    """Faust's own order, with the taking over where Faust offers it: when partitions have been assigned."""

    async def assigned(self: Any, tps: Iterable[Any], generation_id: int = 0) -> None:
        await faust.App._on_partitions_assigned(self, tps, generation_id)
        await asyncio.sleep(float(os.environ.get("TAKE_OVER_S", "0")))
        await self.on_take_over(tps)

    faust_app.OrderedRecovery._restart_recovery = Recovery._restart_recovery
    faust_app.FaustApp._on_partitions_assigned = assigned  # type: ignore[method-assign]


def no_producer() -> None:
    """Faust's own producer runs, as its commit needs."""
    faust_app.Boot.enable_kafka_producer = True


def prompt_start() -> None:
    del faust_app.Tables.on_start


def offset_reset() -> None:
    take_out_of_conf("consumer_auto_offset_reset")


def environment() -> None:
    take_out_of_conf("env")


def header_name() -> None:
    fetcher.MemoryRecords = header_names.MemoryRecords
    fetcher.PartitionRecords = header_names.LenientPartitionRecords.__bases__[0]


def predecessor() -> None:
    """Second line: the lane is not told which offset was fetched before a record."""
    original = lane.Lane.put

    def put(self: Any, record: Record, _: int) -> None:
        original(self, record, -1)

    lane.Lane.put = put  # type: ignore[method-assign]


def sought() -> None:
    """Second line: records fetched before the runtime has sought are handed out too."""
    original = faust_consumer.ConsumerThread.__post_init__

    def post_init(self: Any) -> None:
        original(self)
        self._last = Always()

    class Always(dict[Any, int]):
        def __contains__(self, _: object) -> bool:
            return True

        def __missing__(self, _: object) -> int:
            return -1

    async def seek_all(self: Any, offsets: Any) -> None:
        consumer = self._ensure_consumer()
        for tp, offset in offsets.items():
            consumer.seek(tp, offset)
            self._last[tp] = offset - 1

    faust_consumer.ConsumerThread.__post_init__ = post_init  # type: ignore[method-assign]
    faust_consumer.ConsumerThread._seek_all = seek_all  # type: ignore[method-assign]


def spare() -> None:
    del faust_consumer.Consumer._wait_next_records


def folders() -> None:
    del faust_app.FaustApp._create_directories


def refused_offsets() -> None:
    """aiokafka's own question for committed offsets."""

    async def read(self: Any, tps: Iterable[Any]) -> Any:
        found = await self._ensure_consumer()._coordinator.fetch_committed_offsets([TopicPartition(*tp) for tp in tps])
        return {tp: Committed(at.offset, at.metadata) if (at := found.get(tp)) else None for tp in tps}

    faust_consumer.ConsumerThread._read_committed = read  # type: ignore[method-assign]


def lost_id() -> None:
    """A lost answer counts as a life."""
    partitions.lives = lambda producer: int(producer._txn_manager.producer_epoch)  # type: ignore[assignment]


def refuse_offsets(count: int) -> None:
    """The coordinator's first answers about offsets are refusals, as Kafka words them while the group moves to another."""
    original, left = AIOKafkaClient.send, [count]

    async def send(self: Any, node: int, request: Any, **options: Any) -> Any:
        answer = await original(self, node, request, **options)
        if isinstance(request, OffsetFetchRequest) and left[0] > 0:
            left[0] -= 1
            answer.topics, answer.error_code = [], NotCoordinatorForGroupError.errno
        return answer

    AIOKafkaClient.send = send


def lose_id_answers(count: int) -> None:
    """The broker gives the first producers of partitions their epochs, and the connections end before the answers come."""
    original, left = AIOKafkaClient.send, [count]

    async def send(self: Any, node: int, request: Any, **options: Any) -> Any:
        answer = await original(self, node, request, **options)
        if isinstance(request, InitProducerIdRequest) and "-probe-" not in request._transactional_id and left[0] > 0:
            left[0] -= 1
            raise KafkaConnectionError("the answer is lost")
        return answer

    AIOKafkaClient.send = send


REMOVE: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        acks, commit, isolation, handing_out, pause, wake, none_wanted, recovery_order, prompt_start, no_producer,
        offset_reset, environment, header_name, predecessor, sought,
        spare, folders, refused_offsets, lost_id,
    )
}  # fmt: skip


if __name__ == "__main__":
    faust_settings()
    if longest := os.environ.get("LONGEST"):
        watch_queues(Path(longest))
    refuse_offsets(int(os.environ.get("REFUSED_OFFSETS", "0")))
    lose_id_answers(int(os.environ.get("LOST_IDS", "0")))
    for name in filter(None, os.environ.get("WITHOUT", "").split(",")):
        REMOVE[name]()
    sys.exit(run(runtime_agent.build))
