"""Who may do what: access control entries that follow from the catalogue's writers and readers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from veilstream.contracts.catalogue import SCHEMAS, TENANT_ROLE, Topic, tenant_of_topic

ResourceType = Literal["topic", "group", "transactional_id"]
Pattern = Literal["literal", "prefixed"]

PEOPLE = ("clients", "operators")
"""Principals of the catalogue that are no agents: they get no transactional id."""
COUNTING = ("ledger", "operators")
"""Who counts records from outside: they see how far the agents' groups are, and belong to none."""


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """One entry that allows something. `pattern` says whether `name` is a whole name or how names begin."""

    resource: str
    pattern: str
    name: str
    principal: str
    operation: str
    host: str = "*"

    def __str__(self) -> str:
        star = "*" if self.pattern == "prefixed" else ""
        host = "" if self.host == "*" else f" from {self.host}"
        return f"{self.principal} {self.operation} {self.resource} {self.name}{star}{host}"


def principal_of(role: str) -> str:
    """Kafka principal of an agent, `clients` or `operators`."""
    return f"User:veil-{role}"


def wanted_acls(topics: Iterable[Topic]) -> frozenset[Acl]:
    """Every entry the catalogue asks for.

    1. A writer: write, describe; a reader: read, describe.
    2. An agent: its consumer group `veil-AGENT`, and transactional ids that begin with `veil-AGENT-`.
    3. A watcher: describe. Who counts: describe of every group of ours. A writer of a paced topic: of its readers' groups.
    4. People: consumer groups that begin with `veil-clients-` or `veil-operators-` (readers without a group need none).
    5. One tenant's people (`clients.T`): groups that begin with `veil-clients.T.`, and veil.schemas, which names no tenant.
    """
    found: set[Acl] = set()
    roles: set[str] = set()
    for topic in topics:
        for verb, names in (("write", topic.writers), ("read", topic.readers)):
            roles |= set(names)
            for role in names:
                found |= {Acl("topic", "literal", topic.name, principal_of(role), op) for op in (verb, "describe")}
        found |= {Acl("topic", "literal", topic.name, principal_of(role), "describe") for role in topic.watchers}
        roles |= set(topic.watchers)
        if topic.paced:
            groups = [f"veil-{role}" for role in topic.readers if role not in PEOPLE]
            found |= {
                Acl("group", "literal", g, principal_of(role), "describe") for g in groups for role in topic.writers
            }
    for role in roles:
        principal = principal_of(role)
        if role in COUNTING:
            found.add(Acl("group", "prefixed", "veil-", principal, "describe"))
        if role == "ledger":
            continue
        if role.startswith(TENANT_ROLE):
            found.add(Acl("group", "prefixed", f"veil-{role}.", principal, "read"))
            found |= {Acl("topic", "literal", SCHEMAS, principal, op) for op in ("read", "describe")}
            continue
        if role in PEOPLE:
            found.add(Acl("group", "prefixed", f"veil-{role}-", principal, "read"))
            continue
        found.add(Acl("group", "literal", f"veil-{role}", principal, "read"))
        found |= {Acl("transactional_id", "prefixed", f"veil-{role}-", principal, op) for op in ("write", "describe")}
    return frozenset(found)


def surplus_acls(
    present: Iterable[Acl], wanted: frozenset[Acl], topics: Mapping[str, Topic]
) -> list[tuple[Acl, list[str]]]:
    """Entries that let somebody else write one of our topics, or read a trusted one or a tenant's own, with what each opens.

    More readers of shared public topics are the operator's business.
    """
    found = []
    for acl in sorted(set(present) - wanted):
        opened = [t.name for t in topics.values() if _opens(acl, t) and not _covered(acl, t.name, wanted)]
        if opened:
            found.append((acl, opened))
    return found


def _opens(acl: Acl, topic: Topic) -> bool:
    if acl.resource != "topic" or acl.operation == "describe":
        return False
    if acl.pattern == "literal" and acl.name not in (topic.name, "*"):
        return False
    if acl.pattern == "prefixed" and not topic.name.startswith(acl.name):
        return False
    return topic.visibility == "trusted" or tenant_of_topic(topic.name) is not None or acl.operation != "read"


def _covered(acl: Acl, topic: str, wanted: frozenset[Acl]) -> bool:
    """Whether the principal may do just this there anyway, by an entry of ours."""
    return Acl("topic", "literal", topic, acl.principal, acl.operation) in wanted
