"""Faust as the carrier: it joins the group, assigns, fetches and streams. Publishing, committing and tables are not its own.

Together with faust_consumer.py this is all that knows Faust's inside, so it is tied to the exact versions it was written
against. What it works around here (the names of WORKAROUNDS; tests/pipeline/test_workarounds.py shows what happens without each):

- recovery_order: Recovery lets records flow before it seeks, and loses what came between: the end of an assignment is
  ordered anew. (Insurance: faust_consumer.py hands out nothing that was fetched before the runtime's seek.)
- prompt_start: Starting waits a second for tables that Faust does not have here.
- offset_reset: Where the log no longer holds the next record, Faust reads on at its beginning, in silence: here it is an error.
- folders: Faust makes `GROUP-data` in the working directory for stores that it does not have here: it makes none.
- environment: Variables like BROKER_URL or CONSUMER_AUTO_OFFSET_RESET win over what the code says: Faust sees none.

Faust's own producer is never used, so it is not started: nothing could send outside a transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib.metadata import version
from typing import Any, Final

import faust
from aiokafka.errors import IllegalStateError
from faust.app.base import BootStrategy
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.types import TP
from mode import Service

from veilstream.contracts.errors import ConfigError
from veilstream.runtime.faust_consumer import Transport

WRITTEN_FOR: Final = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"}
POLL_RECORDS: Final = 1000

WORKAROUNDS: Final = {
    "recovery_order": (
        "faust.tables.recovery:Recovery._restart_recovery",
        "faust.tables.recovery:Recovery._resume_streams",
    ),
    "prompt_start": ("faust.tables.manager:TableManager.on_start",),
    "offset_reset": ("aiokafka.consumer.fetcher:Fetcher._proc_fetch_request",),
    "folders": ("faust.app.base:App._create_directories",),
    "environment": ("faust.types.settings.base:SettingsRegistry._init_settings",),
}
"""Short name of each workaround, and the functions whose inside it relies on (tests/unit/test_faust_versions.py pins them)."""


def require_versions() -> None:
    """Refuse other versions: each override relies on how exactly these two work inside."""
    for package, wanted in WRITTEN_FOR.items():
        if (found := version(package)) != wanted:
            raise ConfigError(
                f"{package} {found} is installed, veilstream/runtime/faust_app.py is written for {wanted}: install "
                f"{package}=={wanted}, or go through that module, faust_consumer.py and their tests and edit WRITTEN_FOR"
            )


class OrderedRecovery(Recovery):
    """What follows an assignment: the runtime opens the partitions, and only then anything flows."""

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):
                return
            self.signal_recovery_start.clear()
            try:
                await self._wait(self._take_over())
            except (RebalanceAgain, IllegalStateError):
                continue  # the assignment that follows signals again
            except ServiceStopped:
                return
            except Exception as exc:  # noqa: BLE001 - whatever it is, the process ends
                self.app.on_lost(exc)
                return

    async def _take_over(self) -> None:
        app, consumer = self.app, self.app.consumer
        if app.rebalancing_count != app.assigned_count:
            return  # the next rebalance has begun, and signals when it ends
        assignment = consumer.assignment()
        if not await app.on_take_over(assignment):
            return
        await app.on_rebalance_complete.send()
        if app.rebalancing_count != app.assigned_count:
            return
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_partitions(assignment)
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        app.on_rebalance_end()


class Tables(TableManager):
    """Faust's table manager with no table in it."""

    _recovery: OrderedRecovery | None = None

    @property
    def recovery(self) -> OrderedRecovery:
        if self._recovery is None:
            self._recovery = OrderedRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class Boot(BootStrategy):
    """Without Faust's producer and web server."""

    enable_kafka_producer = False
    enable_web = False


class FaustApp(faust.App):
    """faust.App with hooks instead of Faust's own delivery. Subclass it: see veilstream/runtime/engine.py."""

    BootStrategy = Boot

    def __init__(self, group: str, **conf: Any) -> None:
        require_versions()
        self.assigned_count = 0
        super().__init__(
            group,
            TableManager=Tables,
            store="memory://",
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            consumer_auto_offset_reset="none",
            broker_max_poll_records=POLL_RECORDS,
            env={},
            **conf,
        )

    def _create_directories(self) -> None:
        """Nothing is stored here."""

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    @property
    def consumer_started(self) -> bool:
        return self._consumer is not None and self._consumer.reading._consumer is not None

    async def read_topics(self, topics: Collection[str]) -> bool:
        """Read these topics from now on, by a rebalance; False while there is one going on, in which it cannot be done.

        Faust has this for agents that are added while it runs, 45 s after they were (Conductor._subscriber).
        """
        if not self.consumer_started or self.rebalancing:
            return False
        for channel in self.topics:
            channel.topics = sorted(topics)
        await self.consumer.subscribe(await self.topics._update_indices())
        return True

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super()._on_partitions_revoked(revoked)
        await self.on_let_go()

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.assigned_count = self.rebalancing_count
        await super()._on_partitions_assigned(assigned, generation_id)

    async def on_take_over(self, assignment: Iterable[TP]) -> bool:
        """Called after an assignment, with flow off. When it returns True, flow goes on."""
        return True

    async def on_let_go(self) -> None:
        """Called before partitions are given away, with flow off. When it returns, others may have them."""

    def on_lost(self, exc: BaseException) -> None:
        """Called when taking over failed: the process must end."""
