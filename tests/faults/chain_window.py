"""What a fault scenario puts into the chain, and what came of it: counted by the ledger's book from committed records.

    async with opened(rig) as window:
        async with window.load():
            ...  # the fault
        return await window.found()

The end is sure without a guess at time: the load's last records, one for each conversation, go the same way as all others
of their conversation. Once they have their verdicts, whatever is still missing is lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agents.ingest.admit import replay
from tests.faults.chain_rig import TENANT, ChainRig
from tests.faults.chain_rows import Stored, quota_total, stored_rows
from tests.faults.scenario import Found
from tests.pipeline.chain import until
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import Offsets
from veilstream.client.ledger import take
from veilstream.contracts.catalogue import AUDIT, REQUESTS
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, DeadLetter, Verdict
from veilstream.ledger.book import Account, Book
from veilstream.ledger.sameness import kind_of, letter_digest, verdict_digest

RATE_PER_S = 35.0
CONVERSATIONS = 24
SETTLE_S = 120.0
"""How long the last records may take: a dead worker's open transaction hides them for 32 s."""
AUDIT_BROKEN_S = 10.0
"""A broken runtime may have lost what would be waited for."""
LAST_AGAIN_S = 8.0
"""A broken runtime may lose the last records themselves: they are sent again."""


@dataclass
class Window:
    """Everything on the chain's public topics from `starts` on."""

    rig: ChainRig
    name: str
    starts: Offsets
    quota_before: int
    cluster: str
    began: datetime
    book: Book = field(default_factory=Book)
    letters: list[DeadLetter] = field(default_factory=list)
    decisions: dict[Origin, str] = field(default_factory=dict)
    """Of the first verdict of each origin."""
    events: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Audit events by place on the audit topic."""
    audited: Counter[Origin] = field(default_factory=Counter)
    out_of_order: int = 0
    standstill_s: float = 0.0
    waiting: set[Origin] = field(default_factory=set)
    sent: int = 0
    _last_moved: float = 0.0
    _numbers: dict[str, int] = field(default_factory=dict)
    _ends: set[str] = field(default_factory=set)
    _judged: set[Origin] = field(default_factory=set)
    _good: set[Origin] = field(default_factory=set)
    _admitted: set[Origin] = field(default_factory=set)

    @asynccontextmanager
    async def load(self, rate_per_s: float = RATE_PER_S) -> AsyncIterator[None]:
        """Send at a steady rate while the body runs."""
        ended = asyncio.Event()
        sending = asyncio.create_task(self._send(ended, rate_per_s))
        try:
            yield
        finally:
            ended.set()
            await sending

    async def judged(self, count: int, timeout_s: float = 120.0) -> None:
        """Wait until so many more records have an outcome than now."""
        goal = len(self._judged) + count

        async def there() -> bool:
            return len(self._judged) >= goal

        await until(there, timeout_s=timeout_s, what=f"{count} more outcomes")

    async def found(self, note: str = "") -> Found:
        """Wait until all is settled, and count."""
        await self.settle()
        account = self.book.account()
        stored = await self._stored()
        quota = await quota_total(self.rig.stack.settings, TENANT) - self.quota_before
        judged = Counter(self.decisions.keys())
        audit_errors = (self.audited - judged).total() + (judged - self.audited).total()
        row_errors = stored.wrong(set(self.events))
        table_errors = audit_errors + row_errors + abs(quota - len(self._admitted))
        not_allowed = sum(self.decisions.get(origin, "allow") != "allow" for origin in self._good)
        again = sum(letter.code in replay.CODES for letter in self.letters)  # admit hides what the gate wrote twice
        wrong = {
            "gated twice": again,
            "audit events": audit_errors,
            "audit rows": row_errors,
            "quota": quota - len(self._admitted),
            "out of order": self.out_of_order,
            "good ones refused": not_allowed,
            "from nowhere": account.unknown,
            "veil ledger sees otherwise": await self._ledger_differs(account),
        }
        notes = [note, *(f"{name}: {number}" for name, number in wrong.items() if number)]
        return Found(
            records=account.accepted,
            lost=account.lost,
            doubles=account.doubles + account.unknown + again,
            differing=account.differing + self.out_of_order + not_allowed + wrong["veil ledger sees otherwise"],
            table_errors=table_errors,
            standstill_s=round(self.standstill_s, 1),
            note="; ".join(filter(None, notes)),
        )

    async def settle(self) -> None:
        """Wait until each conversation's last record has its verdict, sent again where a broken runtime lost it."""
        self._ends.clear()
        deadline = time.monotonic() + SETTLE_S
        while len(self._ends) < CONVERSATIONS and time.monotonic() < deadline:
            await self._send_ends()
            again = time.monotonic() + (LAST_AGAIN_S if self.rig.broken else SETTLE_S)
            while len(self._ends) < CONVERSATIONS and time.monotonic() < again:
                await asyncio.sleep(0.05)
        unsettled = CONVERSATIONS - len(self._ends)
        assert not unsettled, f"{unsettled} conversations do not go on: nobody knows what of them is lost"
        await self._audit_settled()

    async def _ledger_differs(self, own: Account) -> int:
        """1 where `veil ledger`, which has its own barrier, does not come to the same count of the same records."""
        async with self.rig.client() as client:
            statement = (await take(client, self.began, wait_s=SETTLE_S)).statement
        seen = statement.records
        same = [
            (account.accepted, account.lost, account.doubles, account.unknown, account.in_work)
            for account in (own, seen)
        ]
        return int(same[0] != same[1])

    async def _audit_settled(self) -> None:
        """Every verdict's event is seen, and the audit store has gone past the last of them."""
        limit_s = AUDIT_BROKEN_S if self.rig.broken else SETTLE_S

        async def stored() -> bool:
            seen = {origin for origin in self.decisions if origin in self.audited}
            if len(seen) < len(self.decisions):
                return False
            return (await self._stored()).reaches(set(self.events))

        with suppress(AssertionError):  # then the rows that miss are counted
            await until(stored, timeout_s=limit_s, what="the audit rows")

    async def _stored(self) -> Stored:
        starts = {tp.partition: offset for tp, offset in self.starts.items() if tp.topic == AUDIT}
        return await stored_rows(self.rig.stack.settings, AUDIT, starts)

    async def _send(self, ended: asyncio.Event, rate_per_s: float) -> None:
        """While the broker is away, a client of its own is made again. What arrived is counted on the topic."""
        while not ended.is_set():
            try:
                async with self.rig.client() as client:
                    due = time.monotonic()
                    while not ended.is_set():
                        await self.put(client, f"c{self.sent % CONVERSATIONS}")
                        due = max(due + 1 / rate_per_s, time.monotonic() - 1.0)
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
            except ClientError:
                await asyncio.sleep(0.2)

    async def put(self, client: AsyncClient, conversation: str, *, last: bool = False, text: str = "") -> Origin:
        """Send one good record of a conversation; its number in it tells the order. Every other is a session, too."""
        number = self._numbers[conversation] = self._numbers.get(conversation, -1) + 1
        self.sent += 1
        request = {
            "tenant": TENANT,
            "text": text or f"Record {number} for ada{number}@example.com",
            "conversation": f"{self.name}-{conversation}",
            "request_id": f"{self.name}.{conversation}.{number}.{'last' if last else 'more'}",
        }
        if conversation[-1] in "13579":
            request["session"] = f"session_{hashlib.sha256(request['conversation'].encode()).hexdigest()[:32]}"
        value = json.dumps(request).encode()
        origin = await (await client.append(REQUESTS, conversation.encode(), value))
        self._good.add(origin)
        return origin

    async def _send_ends(self) -> None:
        with suppress(ClientError):
            async with self.rig.client() as client:
                for number in range(CONVERSATIONS):
                    if f"c{number}" not in self._ends:
                        await self.put(client, f"c{number}", last=True)

    def see(self, record: Any, codec: Codec) -> None:
        """Take note of one committed record."""
        match record.topic:
            case "veil.requests":
                origin = Origin(self.cluster, record.topic, record.partition, record.offset)
                self.book.accept(origin)
                if origin not in self._judged:
                    if not self.waiting:
                        self._last_moved = time.monotonic()
                    self.waiting.add(origin)
            case "veil.verdicts":
                self._verdict(codec.decode(Verdict, record.value))
            case "veil.dead-letters":
                letter = codec.decode(DeadLetter, record.value)
                self.letters.append(letter)
                origin = letter.origin or letter.coordinates
                if origin.topic == REQUESTS and self._is_ours(origin):
                    self.book.outcome(origin, 0, "dead_letter", letter_digest(letter))
                    self._moved(origin)
            case _:
                event = codec.decode(AuditEvent, record.value)
                self.events[record.partition, record.offset] += 1
                if event.action == "verdict" and event.origin is not None and self._is_ours(event.origin):
                    self.audited[event.origin] += 1

    def _verdict(self, verdict: Verdict) -> None:
        origin = verdict.origin
        if not self._is_ours(origin):
            return  # of a broken run before this one
        self.book.outcome(origin, verdict.revision, kind_of(verdict), verdict_digest(verdict))
        name, _, rest = (verdict.request_id or "").partition(".")
        if origin not in self.decisions and name == self.name:
            conversation, number, last = rest.split(".")
            self.out_of_order += int(number) < self._numbers.get(f"seen {conversation}", -1)
            self._numbers[f"seen {conversation}"] = int(number)
            if last == "last":
                self._ends.add(conversation)
        self.decisions.setdefault(origin, verdict.decision)
        if verdict.tenant == TENANT and verdict.policy is not None:  # a quota does not count what the gate refused
            self._admitted.add(origin)
        self._moved(origin)

    def _moved(self, origin: Origin) -> None:
        self.look()
        self._last_moved = time.monotonic()
        self._judged.add(origin)
        self.waiting.discard(origin)

    def look(self) -> None:
        """Note how long nothing has come while something waits."""
        if self.waiting:
            self.standstill_s = max(self.standstill_s, time.monotonic() - self._last_moved)

    def _is_ours(self, origin: Origin) -> bool:
        return any(
            tp.topic == origin.topic and tp.partition == origin.partition and origin.offset >= start
            for tp, start in self.starts.items()
        )
