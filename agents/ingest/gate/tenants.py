"""What the gate asks of a record's tenant: is it there, active, of this region, and on the topic it may use?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agents.ingest.gate.inputs import Input
from veilstream.contracts.catalogue import REQUESTS, own_topic, tenant_of_topic
from veilstream.contracts.reasons import message
from veilstream.contracts.records import Refusal
from veilstream.ingest.parse import Parsed
from veilstream.policy.view import PolicyView
from veilstream.telemetry.access import AccessMetrics


def owner_of(given: Input) -> str | None:
    """Whose topic the record came by; None: the shared one. Who may write there is the tenant, whatever a record says."""
    return tenant_of_topic(given.origin.topic)


def foreign(owner: str | None, parsed: Parsed, counts: AccessMetrics) -> Sequence[Refusal]:
    """Why a record on a tenant's own topic is not that tenant's; empty: it is, or it is on the shared topic."""
    if owner is None or parsed.tenant == owner:
        return ()
    if parsed.tenant is None:
        return parsed.refusals
    counts.foreign_record()
    return (Refusal("foreign_tenant", message("foreign_tenant"), "tenant"),)


def nameless(parsed: Parsed, tenant: str | None = None) -> Parsed:
    """Of a stranger's record: nothing it names is looked up under the tenant's keys."""
    return Parsed(tenant or parsed.tenant, None, (), parsed.request_id)


def tenant_violations(
    view: PolicyView, region: str | None, counts: AccessMetrics, given: Input, tenant_id: str
) -> Iterator[Refusal]:
    """Why nothing of this tenant is accepted here."""
    tenant = view.tenant(tenant_id)
    if tenant is None:
        yield Refusal("unknown_tenant", "no such tenant: create it with `veil tenant create`", "tenant")
    elif tenant.status != "active":
        yield Refusal("tenant_suspended", "the tenant is not active: ask its operator", "tenant")
    elif region not in (None, tenant.region):
        counts.region_violation()
        yield Refusal("wrong_region", message("wrong_region"), "tenant")
    elif owner_of(given) is None and tenant.own_topics and given.received_ms >= tenant.own_topics_ms:
        own = own_topic(REQUESTS, tenant_id)
        yield Refusal("own_topic_only", f"the tenant has topics of its own: send its records to {own}", "tenant")
