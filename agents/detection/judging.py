"""The layer behind the pool: what detection found goes through the router and, where a policy asks, to a language model.

It runs in the event loop of the agent, after the pool's answer and before the transaction, so nothing is published twice when a
worker dies in between: it is asked again. It takes `VEIL_LLM_TOTAL_S` at most for a batch, the search for PII aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

from veilstream.contracts.errors import VeilError
from veilstream.contracts.records import Admitted
from veilstream.detection.model import Detection, DetectionRequest
from veilstream.detection.threats.llm.judge import Case, Judge, Search
from veilstream.policy.document import Policy
from veilstream.policy.view import PolicyView

Answer: TypeAlias = tuple[Detection, Mapping[str, str]] | VeilError
"""What a worker said of one request, or why it said nothing."""


class Asked(Protocol):
    """A record and what was asked about it."""

    @property
    def admitted(self) -> Admitted: ...

    @property
    def request(self) -> DetectionRequest: ...


A = TypeVar("A", bound=Asked)


async def judged(
    judge: Judge, view: PolicyView, search: Search, asked: Sequence[A], answers: Sequence[Answer]
) -> list[Answer]:
    """Each answer with what the layers behind it say; failures stay as they are. Raises WorldError."""
    cases = [
        _case(view, one, answer[0])
        for one, answer in zip(asked, answers, strict=True)
        if not isinstance(answer, VeilError)
    ]
    found = iter(await judge.judged(cases, search))
    return [answer if isinstance(answer, VeilError) else (next(found), answer[1]) for answer in answers]


def _case(view: PolicyView, asked: Asked, detection: Detection) -> Case:
    envelope = asked.admitted.envelope
    tenant = view.tenant(envelope.tenant)
    return Case(
        tenant=envelope.tenant,
        region="" if tenant is None else tenant.region,
        request=asked.request,
        detection=detection,
        llm=_policy(view, asked.admitted).detection.llm,
        cache=envelope.cache,
        routing=envelope.routing,
    )


def _policy(view: PolicyView, admitted: Admitted) -> Policy:
    pin = admitted.policy
    assert pin is not None, "a record is asked about under its policy"
    return view.document(pin.policy, pin.version, pin.digest)
