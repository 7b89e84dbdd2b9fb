"""One process of one agent, from start to exit: Faust carries, lanes work, the watchdog looks."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

import structlog
from aiokafka import TopicPartition
from faust.types import TP

from veilstream.contracts.step import Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.ending import EXIT_OK, End, Ending
from veilstream.runtime.faust_app import FaustApp
from veilstream.runtime.faust_consumer import Reading
from veilstream.runtime.flow import Limits
from veilstream.runtime.follower import Follower
from veilstream.runtime.inputs import Inputs, usable_by
from veilstream.runtime.kafka import client_options, faust_credentials, require_rights, require_transactions
from veilstream.runtime.partitions import Partitions
from veilstream.runtime.watchdog import LOOK_S, Watchdog
from veilstream.settings import Settings
from veilstream.telemetry.health import HealthServer
from veilstream.telemetry.metrics import RuntimeMetrics

T = TypeVar("T")
log = structlog.get_logger("veilstream.runtime")

STOP_S: Final = 10.0
"""How long Faust may take to leave the group once everything is committed."""


class EngineApp(FaustApp):
    """The Faust app of one agent: its only Faust agent hands each record to its partition's lane."""

    def __init__(self, agent: Agent[Any], settings: Settings, metrics: RuntimeMetrics, ending: Ending) -> None:
        options = client_options(settings)
        super().__init__(
            agent.group,
            broker_credentials=faust_credentials(options),
            broker=[f"kafka://{server.strip()}" for server in settings.bootstrap.split(",")],
            broker_session_timeout=settings.session_timeout_s,
            broker_heartbeat_interval=settings.session_timeout_s / 6,
            consumer_group_instance_id=f"{agent.group}-{settings.instance}" if settings.instance else None,
        )
        self.ending = ending
        self.flowing = False
        self.partitions = Partitions(
            agent,
            Reading(self),
            options=options,
            limits=Limits(
                batch_records=min(settings.batch_records, agent.batch_records or settings.batch_records),
                batch_bytes=settings.batch_bytes,
                transaction_s=1.5 * settings.transaction_timeout_s,  # the broker has aborted it by then
                interval_s=settings.batch_interval_s,
            ),
            transaction_timeout_s=settings.transaction_timeout_s,
            metrics=metrics,
            ending=ending,
        )
        self._name = agent.name

    def begin_with(self, topics: Collection[str]) -> None:
        """What is read from the start on."""
        raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
        self.agent(self.topic(*sorted(topics), acks=False, **raw), name=self._name, concurrency=1)(self._hand_over)

    async def widen(self, topics: Collection[str]) -> bool:
        """Read these topics from now on; False: not now, as partitions are being taken over."""
        if not (self.flowing and await self.read_topics(topics)):
            return False
        log.info("input_topics_added", topics=len(topics))
        return True

    async def _hand_over(self, stream: Any) -> None:
        """Faust's stream costs a turn of the event loop for each event; what waits behind the first is taken along."""
        queue = stream.channel.queue
        try:
            async for event in stream.events():
                self._put(event.message)
                while not queue.empty():
                    self._put(queue.get_nowait().message)
        except Exception as exc:  # noqa: BLE001
            self.ending.fail(exc, "handing records over")

    def _put(self, message: Any) -> None:
        lane = self.partitions.lanes.get(message.tp)
        if lane is not None and message.generation_id == self.consumer_generation_id:
            lane.put(_record(message), message.previous)

    async def on_take_over(self, assignment: Iterable[TP]) -> bool:
        self.flowing = await self.partitions.open([TopicPartition(*tp) for tp in assignment])
        return self.flowing

    async def on_let_go(self) -> None:
        self.flowing = False
        try:
            await self.partitions.close()
        except Exception as exc:  # noqa: BLE001
            self.ending.fail(exc, "giving partitions away")

    def on_lost(self, exc: BaseException) -> None:
        self.ending.fail(exc, "taking partitions over")


def _record(message: Any) -> Record:
    headers = tuple(message.headers) if message.headers else ()
    timestamp_ms = round(message.timestamp * 1000)
    return Record(message.topic, message.partition, message.offset, timestamp_ms, message.key, message.value, headers)


async def work(agent: Agent[T], settings: Settings) -> End:
    """Run the agent until it is told to stop or cannot go on.

    1. Serve health and metrics, so that a slow start can be seen.
    2. Refuse a broker without transactions, and a principal without its rights.
    3. Start services, load the pool's models, read the followed topics: before any partition is ours.
    4. Join the group and work.
    5. Drain: no more fetching, finish the batches in work, commit, leave the group.
    """
    ending = Ending()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.drain, signal.Signals(number).name)
    metrics = RuntimeMetrics(agent.name)
    app = EngineApp(agent, settings, metrics, ending)
    watchdog = Watchdog(app.partitions, metrics, agent.pool)
    health = _health(agent, settings, app, watchdog)
    await health.start()  # 1
    log.info("agent_starting", group=agent.group, topics=list(agent.topics), health_port=health.port)
    running = asyncio.create_task(_start(agent, settings, app), name="start")
    ending.watch(running, "starting")
    watching = asyncio.create_task(watchdog.run(), name="watchdog")
    ending.watch(watching, "watching")
    end = await ending.wait()
    log.log(_level(end), "agent_stopping", reason=end.reason)
    watching.cancel()
    if end.code == EXIT_OK:
        await _drain(agent, app, running)  # 5
    await health.stop()
    return end


async def _start(agent: Agent[T], settings: Settings, app: EngineApp) -> None:
    options = client_options(settings)
    await require_transactions(options, agent.group, settings.instance or "any")  # 2
    table = (agent.table,) if agent.table else ()
    followed = [follower.topic for follower in agent.followers]
    reads = {*agent.topics, *followed, *table, *agent.looks_up}
    await require_rights(settings, group=agent.group, reads=reads, writes=table)
    for service in agent.services:  # 3
        await service.start()
    loading = () if agent.pool is None else (agent.pool.start(),)
    await asyncio.gather(*loading, *(_follow(follower, options, app) for follower in agent.followers))
    inputs = Inputs(agent, usable_by(settings))
    await inputs.widened()
    app.begin_with(inputs.topics)
    widening = asyncio.create_task(inputs.follow(app.widen), name="inputs")
    app.ending.watch(widening, "looking for input topics")
    await app.start()  # 4
    await app.wait_until_stopped()
    if app.crash_reason is not None:
        raise app.crash_reason
    if not app.ending.reached:
        raise RuntimeError("Faust stopped by itself")


async def _follow(follower: Follower, options: Mapping[str, Any], app: EngineApp) -> None:
    await follower.start(options)
    app.ending.watch(follower.task, f"following {follower.topic}")


async def _drain(agent: Agent[T], app: EngineApp, running: asyncio.Task[None]) -> None:
    """What is committed stays so whatever happens here: a Faust or a service that does not stop is left behind."""
    if app.consumer_started:
        app.consumer.stop_flow()
        await app.on_let_go()
    stopping = asyncio.create_task(_stop(agent, app), name="stop")
    await asyncio.wait([stopping], timeout=STOP_S)  # no cancelling: Faust swallows it
    if not stopping.done():
        log.warning("stop_incomplete", waited_s=STOP_S, next="the process exits anyway, everything is committed")
    running.cancel()


async def _stop(agent: Agent[T], app: EngineApp) -> None:
    await app.stop()
    for follower in agent.followers:
        await follower.stop()
    if agent.pool is not None:
        await agent.pool.stop()
    for service in reversed(agent.services):
        await service.stop()


def _level(end: End) -> int:
    return 20 if end.code == EXIT_OK else 40


def _health(agent: Agent[T], settings: Settings, app: EngineApp, watchdog: Watchdog) -> HealthServer:
    def alive() -> dict[str, Any]:
        silent_s = time.monotonic() - watchdog.looked_at
        return {"agent": agent.name} | ({"reason": f"no look for {silent_s:.0f} s"} if silent_s > 4 * LOOK_S else {})

    def ready() -> dict[str, Any]:
        state = {"agent": agent.name, "partitions": _named(app.partitions.lanes)}
        behind = [follower.topic for follower in agent.followers if not follower.caught_up]
        if behind:
            return state | {"reason": f"still reading {', '.join(behind)}"}
        if not app.flowing:
            return state | {"reason": "no assignment yet, or taking partitions over"}
        held = _named(tp for tp, lane in app.partitions.lanes.items() if lane.held_since is not None)
        return state | ({"held": held} if held else {})

    return HealthServer(settings.health_host, settings.health_port, alive=alive, ready=ready)


def _named(sources: Collection[Any] | Iterable[Any]) -> list[str]:
    return sorted(f"{source.topic}[{source.partition}]" for source in sources)
