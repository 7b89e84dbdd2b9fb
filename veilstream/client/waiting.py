"""One reader of the verdict topic for all checks of a client: each waits for the verdict of its origin.

The promise, step by step:
1. The ends of the verdict partitions are noted before anything is produced (`start`); reading begins there.
2. A check gets its ticket before it produces: from then on verdicts are kept, as one may come before the acknowledgement.
3. The acknowledgement names the origin; the verdict of that origin, highest revision first, answers the check.
4. What was kept is dropped as soon as no unacknowledged check can want it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from veilstream.client.decoding import VerdictDecoder
from veilstream.client.kafka import Cluster, assign, explain, read, started_consumer, stop_reading
from veilstream.contracts.catalogue import VERDICTS
from veilstream.contracts.errors import ClientError, VeilError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Verdict


class Ticket:
    """A check's place in the line; taken before it produces."""

    __slots__ = ("_number", "_waiting", "verdict")

    def __init__(self, waiting: Waiting, number: int) -> None:
        self._waiting = waiting
        self._number = number
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def acknowledged(self, origin: Origin) -> None:
        """The record is on the topic under this origin."""
        self._waiting.bind(self._number, origin)

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        self._waiting.forget(self._number)


class Waiting:
    """Reads the verdict topic and answers tickets."""

    def __init__(
        self, options: Mapping[str, Any], cluster: Cluster, decoder: VerdictDecoder, verdicts: str = VERDICTS
    ) -> None:
        self._options = options
        self._partitions = cluster.of(verdicts)
        self._decoder = decoder
        self._given = 0
        self._tickets: dict[int, Ticket] = {}
        self._unacknowledged: dict[int, None] = {}
        """Numbers in the order they were given: the first is the oldest."""
        self._wanted: dict[Origin, int] = {}
        self._origins: dict[int, Origin] = {}
        self._kept: OrderedDict[Origin, tuple[int, Verdict]] = OrderedDict()
        """By origin: how many tickets had been given when the verdict came, and the verdict."""
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: ClientError | None = None
        self.unreadable = 0
        """Verdict records that could not be decoded."""

    async def start(self) -> None:
        """1. Note the ends and read from there."""
        self._consumer = await started_consumer(self._options)
        try:
            assign(self._consumer, await self._consumer.end_offsets(self._partitions))
        except KafkaError as exc:
            raise explain(exc, str(self._options["bootstrap_servers"])) from None
        self._task = asyncio.create_task(self._read(self._consumer), name="veil-client-verdicts")

    async def stop(self) -> None:
        """End reading; checks that still wait get a ClientError."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._consumer is not None:
            await stop_reading(self._consumer)

    def ticket(self) -> Ticket:
        """2. A place in the line. Raises ClientError when the reader has ended."""
        if self._ended is not None:
            raise self._ended
        number, self._given = self._given, self._given + 1
        ticket = self._tickets[number] = Ticket(self, number)
        self._unacknowledged[number] = None
        return ticket

    def bind(self, number: int, origin: Origin) -> None:
        """3. Tie a ticket to its origin; the verdict may have come already."""
        self._unacknowledged.pop(number, None)
        self._wanted[origin] = number
        self._origins[number] = origin
        _, verdict = self._kept.pop(origin, (0, None))
        self._drop_kept()
        if verdict is not None:
            self._answer(verdict)

    def forget(self, number: int) -> None:
        """Take a ticket out of the line."""
        self._unacknowledged.pop(number, None)
        self._tickets.pop(number, None)
        if (origin := self._origins.pop(number, None)) is not None:
            self._wanted.pop(origin, None)
        self._drop_kept()

    def came(self, verdict: Verdict) -> None:
        """A committed verdict was read."""
        if verdict.origin in self._wanted:
            self._answer(verdict)
        elif self._unacknowledged:
            _, former = self._kept.pop(verdict.origin, (0, verdict))
            self._kept[verdict.origin] = (self._given, max(former, verdict, key=lambda one: one.revision))

    def _answer(self, verdict: Verdict) -> None:
        ticket = self._tickets.get(self._wanted[verdict.origin])
        if ticket is not None and not ticket.verdict.done():
            ticket.verdict.set_result(verdict)

    def _drop_kept(self) -> None:
        """4. A verdict that came before the oldest unacknowledged ticket was given cannot be its answer."""
        oldest = next(iter(self._unacknowledged), self._given)
        while self._kept and next(iter(self._kept.values()))[0] <= oldest:
            self._kept.popitem(last=False)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        try:
            async for record in read(consumer):
                try:
                    self.came(await self._decoder.decode(record.value))
                except VeilError:  # it may be anybody's verdict: whoever waits for it is told the number
                    self.unreadable += 1
            self._ended = ClientError("the reader of verdicts ended: open a new client", code="client_closed")
        except KafkaError as exc:
            self._ended = explain(exc, str(self._options["bootstrap_servers"]))
        except asyncio.CancelledError:
            self._ended = ClientError("the client was closed while a check waited", code="client_closed")
            raise
        finally:
            for ticket in self._tickets.values():
                if not ticket.verdict.done():
                    ticket.verdict.set_exception(self._ended or ClientError("the reader of verdicts ended"))
                    ticket.verdict.exception()  # taken note of: a check that timed out never looks
