"""The gate's question to the log of users and addresses, about the records of a batch that it would let through otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from agents.ingest.gate.inputs import Input, is_redrive
from veilstream.contracts.records import Limits, Refusal, Request
from veilstream.keys.derived import TenantKeys
from veilstream.policy.view import PolicyView
from veilstream.tenancy.actor_limits import ActorLog, Use, refusal_of, unknown, use_of
from veilstream.tenancy.tiers import effective


@dataclass(frozen=True, slots=True)
class Accepted:
    """A record with which nothing is wrong, still to be sealed."""

    given: Input
    request: Request
    keys: TenantKeys

    @property
    def at_ms(self) -> int:
        """The broker's time of the input record; of a redrive its own, by the policy agent's clock, which may be behind."""
        return max(self.given.record.timestamp_ms, self.given.received_ms)


@dataclass(frozen=True, slots=True)
class Actors:
    """What limits by user and address are asked with."""

    log: ActorLog
    refuse_unknown: bool
    """Whether a record is refused that the log cannot tell about now; else it goes on."""
    refused: Callable[[Refusal], None] = lambda _: None
    """Told of each refusal, but for those without an answer."""

    async def refusals(self, view: PolicyView, batch: Sequence[Accepted]) -> Sequence[Refusal | None]:
        """Of each record why it is refused; None: it is not. One question for all of them; never raises."""
        uses = list(_uses(view, batch))
        asked = [use for use in uses if use is not None]
        answers = await self.log.decided(asked) if asked else ()
        if answers is None:
            return [unknown() if use is not None and self.refuse_unknown else None for use in uses]
        told = iter([refusal_of(use, answer) for use, answer in zip(asked, answers, strict=True)])
        found = [None if use is None else next(told) for use in uses]
        for refusal in filter(None, found):
            self.refused(refusal)
        return found


def _uses(view: PolicyView, batch: Iterable[Accepted]) -> Iterator[Use | None]:
    """A redrive is no use: its record was counted when it came, or was not let in by a limit at all."""
    limits: dict[str, Limits | None] = {}
    for one in batch:
        request = one.request
        if request.tenant not in limits:
            tenant = view.tenant(request.tenant)
            limits[request.tenant] = None if tenant is None else effective(tenant.tier, tenant.limits)
        of_tenant = limits[request.tenant]
        if of_tenant is None or is_redrive(one.given.record):
            yield None
        else:
            yield use_of(
                of_tenant, one.keys.limits, one.given.origin, one.given.received_ms,
                user=request.user, address=request.source_address,
            )  # fmt: skip
