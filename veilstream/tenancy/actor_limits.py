"""Limits by user and by source address: what is asked of the log that counts them, and what its answer means. No Redis, no clock.

A record counts at its broker time. It is refused where as many of the same user (or address) as the limit were counted in the
60 seconds up to that time, or a burst in the second up to it. Of an IPv6 address the first 64 bits count, as one household or
machine has all of the rest; an IPv4 address in IPv6's clothes is the IPv4 address.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from veilstream.contracts.errors import Fault
from veilstream.contracts.identity import Origin, digest_of
from veilstream.contracts.reasons import message
from veilstream.contracts.records import Limits, Refusal
from veilstream.tenancy.quota import BACKOFF_S, retry_after_s
from veilstream.tenancy.tiers import BURST
from veilstream.tenancy.windows import MINUTE_MS

USER, ADDRESS, UNKNOWN = "limit_user", "limit_address", "limit_unknown"
_WORDS: Final = {USER: "one user", ADDRESS: "one source address"}

KEEP_MS: Final = 2 * MINUTE_MS
"""How long a counted record is remembered: input partitions that lie up to a minute behind one another are counted together."""

_ID_BYTES = 12
"""Of a record among the thousands of one actor in two minutes: none meets another by chance."""
_NAME_HEX = 32
_PREFIX_BITS = 64


@dataclass(frozen=True, slots=True)
class Actor:
    """A user or an address of one tenant, by a pseudonym, and what it may send."""

    code: str
    """USER or ADDRESS: what a record is refused with."""
    name: str
    limit: int
    """Records in any 60 seconds."""
    burst: int = BURST
    """Records in any second."""


@dataclass(frozen=True, slots=True)
class Use:
    """One record that is to be counted; `id` is the same whenever it is worked on."""

    id: str
    at_ms: int
    actors: tuple[Actor, ...]


Answer: TypeAlias = Sequence[int]
"""Of one use: for each of its actors 0, or its refusals in a row, this one included. Any but 0: nothing was counted."""


class ActorLog(Protocol):
    """What counts. It never raises: None says that it cannot tell now, for all of them."""

    async def decided(self, uses: Sequence[Use]) -> Sequence[Answer] | None: ...


def use_of(
    limits: Limits, key: bytes, origin: Origin, at_ms: int, *, user: str | None, address: str | None
) -> Use | None:
    """What of a record is to be counted; None: nothing. `key` is the tenant's for this use: without it a name says nothing."""
    actors = tuple(_actors(limits, key, user, address))
    return Use(_id(origin), at_ms, actors) if actors else None


def refusal_of(use: Use, answer: Answer) -> Refusal | None:
    """Why the record is refused; where several refuse, the one that is to be waited for longest is told."""
    in_row, actor = max(zip(answer, use.actors, strict=True), key=lambda pair: pair[0])
    if not in_row:
        return None
    second = min(actor.limit, actor.burst)
    reason = (
        f"{_WORDS[actor.code]} may send {actor.limit:,} records in 60 seconds and {second:,} in one, and they are used up: "
        "send the record again later"
    )
    return Refusal(actor.code, reason, Fault.TENANT.value, retry_after_s=retry_after_s(in_row))


def unknown() -> Refusal:
    """The answer where limits cannot be asked and nothing is to pass without."""
    return Refusal(UNKNOWN, message(UNKNOWN), Fault.WORLD.value, retry_after_s=BACKOFF_S[-1])


def _actors(limits: Limits, key: bytes, user: str | None, address: str | None) -> Iterator[Actor]:
    if user is not None and limits.user_requests_per_minute is not None:
        yield Actor(USER, _name(key, "user", user), limits.user_requests_per_minute)
    if address is not None and limits.address_requests_per_minute is not None:
        yield Actor(ADDRESS, _name(key, "address", _place(address)), limits.address_requests_per_minute)


def _name(key: bytes, kind: str, value: str) -> str:
    told = hmac.digest(key, f"{kind}|{value}".encode(errors="surrogatepass"), "sha256")
    return f"{kind}:{told.hex()[:_NAME_HEX]}"


def _place(address: str) -> str:
    """What counts as one address. The gate has checked that it is one."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{int(found) >> _PREFIX_BITS:x}/{_PREFIX_BITS}"


def _id(origin: Origin) -> str:
    digest = digest_of("veil-actor-use-v1", origin.cluster, origin.topic, origin.partition, origin.offset)
    return base64.b64encode(digest[:_ID_BYTES]).decode()
