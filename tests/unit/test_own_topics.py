"""Tenant mode, pure: whose topic a name is, what a tenant's topics and rights are to be, and what a plan says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from veilstream.client.passed import CHAIN
from veilstream.client.topics import Topics, topics_of
from veilstream.contracts.catalogue import catalogue, own_rows, tenant_of_topic
from veilstream.contracts.errors import ClientError, ConfigError
from veilstream.tenancy.ids import RESERVED, is_tenant_id
from veilstream.topics.acls import Acl, surplus_acls, wanted_acls
from veilstream.topics.own import all_rows, entries_of, require_tenant, rows_of, tenants_of
from veilstream.topics.plan import Change, ClusterView, TopicView, plan
from veilstream.topics.published import noted_as

OWN = ("veil.requests.acme", "veil.verdicts.acme", "veil.audit.acme", "veil.public-keys.acme")
ROWS = own_rows("acme", partitions=2)


@pytest.mark.parametrize(
    ("name", "tenant"),
    [
        ("veil.requests.acme", "acme"),
        ("veil.verdicts.a-b_C", "a-b_C"),
        ("veil.audit.acme", "acme"),
        ("veil.public-keys.acme", "acme"),
        ("veil.requests", None),
        ("veil.requests.", None),
        ("veil.audit.checkpoints", None),
        ("veil.command.results", None),
        ("veil.gated.acme", None),
        ("veil.dead-letters.acme", None),
        ("veil.requestsacme", None),
        ("other.requests.acme", None),
        ("veil.requests.acme.b", None),
    ],
)
def test_whose_topic_a_name_is(name: str, tenant: str | None) -> None:
    """A tenant's own is the name of a shared one that tenants have copies of, a dot, and the id."""
    assert tenant_of_topic(name) == tenant


def test_no_topic_of_the_catalogue_can_be_a_tenant_s() -> None:
    """The one whose name would be a tenant's has an id that is never given; a new one like it needs another name."""
    for name in catalogue():
        shared, _, last = name.rpartition(".")
        if shared in catalogue() and catalogue()[shared].own and is_tenant_id(last):
            assert last in RESERVED, name


def acl(name: str, role: str, operation: str, *, resource: str = "topic", pattern: str = "literal") -> Acl:
    return Acl(resource, pattern, name, f"User:veil-{role}", operation)


def test_what_a_tenant_s_principal_may() -> None:
    """Written out by hand: its own topics, groups of its own name, and the schemas; nothing that is shared."""
    wanted = {
        acl("veil.requests.acme", "clients.acme", "write"), acl("veil.requests.acme", "clients.acme", "describe"),
        acl("veil.verdicts.acme", "clients.acme", "read"), acl("veil.verdicts.acme", "clients.acme", "describe"),
        acl("veil.audit.acme", "clients.acme", "read"), acl("veil.audit.acme", "clients.acme", "describe"),
        acl("veil.public-keys.acme", "clients.acme", "read"), acl("veil.public-keys.acme", "clients.acme", "describe"),
        acl("veil.schemas", "clients.acme", "read"), acl("veil.schemas", "clients.acme", "describe"),
        acl("veil-clients.acme.", "clients.acme", "read", resource="group", pattern="prefixed"),
    }  # fmt: skip
    found = wanted_acls(ROWS.values())
    assert set(entries_of("acme", found)) == wanted
    assert not {one for one in found if one.principal == "User:veil-clients"}


def test_what_others_may_on_a_tenant_s_topics() -> None:
    """As on the shared ones: agents as the catalogue says, operators and the ledger."""
    found = {(one.name, one.principal.removeprefix("User:veil-"), one.operation) for one in wanted_acls(ROWS.values())}
    roles = {(name, role) for name, role, operation in found if name in OWN and operation in ("read", "write")}
    assert roles - {(name, "clients.acme") for name in OWN} == {
        ("veil.requests.acme", "gate"), ("veil.requests.acme", "operators"), ("veil.requests.acme", "ledger"),
        ("veil.verdicts.acme", "anonymization"), ("veil.verdicts.acme", "operators"), ("veil.verdicts.acme", "ledger"),
        ("veil.audit.acme", "anonymization"), ("veil.audit.acme", "policy"), ("veil.audit.acme", "audit"),
        ("veil.audit.acme", "operators"), ("veil.audit.acme", "ledger"),
        ("veil.public-keys.acme", "policy"), ("veil.public-keys.acme", "operators"), ("veil.public-keys.acme", "ledger"),
    }  # fmt: skip
    assert ("veil.requests.acme", "policy", "describe") in found and (
        "veil.verdicts.acme",
        "policy",
        "describe",
    ) in found


def test_a_tenant_s_topics_are_as_the_shared_ones() -> None:
    """Configuration and key are the catalogue's; the broker measures what clients send without compression there too."""
    for name, row in ROWS.items():
        shared = catalogue()[name.removesuffix(".acme")]
        assert row.configs(replicas=3) == shared.configs(replicas=3)
        assert (row.key, row.schemas, row.visibility) == (shared.key, shared.schemas, shared.visibility)
    assert [row.partition_count(200) for row in ROWS.values()] == [2, 2, 2, 1]


def view(*names: str, acls: frozenset[Acl] | None = frozenset(), partitions: int = 2) -> ClusterView:
    """A cluster with these topics of a tenant, their ids noted."""
    topics = {}
    for name in names:
        tenant = tenant_of_topic(name)
        assert tenant is not None
        row = own_rows(tenant, partitions=partitions)[name]
        topics[name] = TopicView(f"id of {name}", row.partition_count(partitions), 1, row.configs(replicas=1))
    return ClusterView(topics, acls, {noted_as(name): f"id of {name}" for name in names})


def planned(seen: ClusterView, *, given: int | None = None) -> list[Change]:
    return plan(rows_of("acme", seen, given), {}, seen, partitions=4, replicas=1)


ALLOWED = wanted_acls(ROWS.values())
KINDS: dict[str, tuple[ClusterView, int | None, dict[str, int]]] = {
    "nothing is there": (view(), None, {"create": 4, "topic_id": 4, "acl": len(ALLOWED)}),
    "all is there": (view(*OWN, acls=ALLOWED), None, {}),
    "as many partitions as it has": (view(*OWN, acls=ALLOWED, partitions=7), None, {}),
    "other partitions are asked for": (view(*OWN, acls=ALLOWED), 3, {"partitions": 3}),
    "one is missing": (view(*OWN[1:], acls=ALLOWED), 2, {"create": 1, "topic_id": 1}),
    "no right any more": (view(*OWN, acls=ALLOWED - set(entries_of("acme", ALLOWED))), None, {"acl": 11}),
    "no authorizer": (view(*OWN, acls=None), None, {"acls_unchecked": 1}),
    "another tenant's topics": (
        replace(view(*OWN, "veil.requests.bank", acls=ALLOWED)), None, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "given", "kinds"), KINDS.values(), ids=KINDS)
def test_a_plan_of_one_tenant(seen: ClusterView, given: int | None, kinds: dict[str, int]) -> None:
    """It is about this tenant's topics and rights alone."""
    found = planned(seen, given=given)
    assert {kind: sum(c.kind == kind for c in found) for kind in {c.kind for c in found}} == kinds


def test_an_own_topic_that_was_made_again_is_named() -> None:
    """Its offsets begin anew, and with them origins: as with every public topic."""
    seen = view(*OWN, acls=ALLOWED)
    topics = {**seen.topics, OWN[0]: replace(seen.topics[OWN[0]], id="another")}
    assert [(c.kind, c.subject) for c in planned(replace(seen, topics=topics))] == [("recreated", OWN[0])]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (acl("veil.verdicts.acme", "clients.bank", "read"), True),
        (acl("veil.verdicts.acme", "clients", "read"), True),
        (acl("veil.requests.acme", "clients.bank", "write"), True),
        (acl("veil.", "clients.bank", "read", pattern="prefixed"), True),
        (acl("veil.verdicts.acme", "clients.bank", "describe"), False),
        (acl("veil.verdicts.bank", "clients.bank", "read"), False),
    ],
)
def test_who_else_reads_a_tenant_s_topic_is_named(entry: Acl, *, named: bool) -> None:
    """Public topics may have more readers; a tenant's own may not."""
    assert [one for one, _ in surplus_acls({entry}, ALLOWED, ROWS)] == ([entry] if named else [])


def test_the_plan_of_all_has_the_tenants_that_were_made() -> None:
    """By the ids that were noted; what only has such a name stays unknown, and no right comes back that was taken."""
    seen = view(*OWN, acls=ALLOWED)
    leftover = {**seen.topics, "veil.requests.left": TopicView("x", 1, 1, {})}
    assert tenants_of(replace(seen, topics=leftover)) == ["acme"]
    rows = all_rows(replace(seen, topics=leftover))
    assert set(rows) == {*catalogue(), *OWN}
    closed = all_rows(replace(seen, acls=ALLOWED - set(entries_of("acme", ALLOWED))))
    assert entries_of("acme", wanted_acls(closed.values())) == []
    assert closed[OWN[0]].readers == ("gate", "operators", "ledger")
    assert closed[OWN[0]].configs(replicas=1) == ROWS[OWN[0]].configs(replicas=1)


def test_what_is_noted_names_no_tenant() -> None:
    """Every client reads veil.schemas: it sees no list of tenants there."""
    assert noted_as("veil.requests") == "veil.requests"
    assert "acme" not in noted_as("veil.requests.acme")
    assert noted_as("veil.requests.acme") not in (noted_as("veil.requests.acm"), noted_as("veil.verdicts.acme"))


@pytest.mark.parametrize("tenant", ["ab", "a.b", "checkpoints", "operations", "x" * 51, "ä" * 4, ""])
def test_no_topics_for_what_is_no_tenant(tenant: str) -> None:
    """The operator is told before anything is made."""
    with pytest.raises(ConfigError, match="a tenant id is"):
        require_tenant(tenant)


def test_the_topics_of_a_client() -> None:
    """Those all share, or its tenant's own; another tenant's record is not sent to them."""
    assert topics_of(None) == Topics() and Topics().requests == "veil.requests"
    own = topics_of("acme")
    assert (own.requests, own.verdicts, own.audit, own.public_keys) == OWN
    own.require("acme")
    Topics().require("anybody")
    with pytest.raises(ClientError) as told:
        own.require("acm")
    assert told.value.reason_code == "foreign_tenant"
    with pytest.raises(ConfigError, match="VEIL_TENANT_TOPICS"):
        topics_of("a.b")


@pytest.mark.parametrize(
    ("names", "own"),
    [
        ([], ()),
        (OWN, ("acme",)),
        ([OWN[0], OWN[1]], ()),
        ([*OWN, "veil.requests.b-b", "veil.verdicts.b-b", "veil.audit.b-b", "veil.audit.checkpoints"], ("acme", "b-b")),
        (["veil.requests", "veil.verdicts", "veil.audit"], ()),
    ],
)
def test_what_is_watched_with_tenants_that_have_topics(names: Any, own: tuple[str, ...]) -> None:
    """A tenant counts when its records, verdicts and audit can all be followed."""
    watched = CHAIN.with_own(names)
    assert watched.own == own
    assert watched.inputs == ("veil.requests", *(f"veil.requests.{tenant}" for tenant in own))
    assert set(watched.topics) >= {*watched.inputs, *watched.outcomes, *watched.events}
    assert watched.with_own([]) == CHAIN
