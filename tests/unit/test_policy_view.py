"""PolicyView: which version a record is judged under, and that the view is a fold of `veil.state`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import Fault, RecordError, TenantError
from veilstream.contracts.records import Activation, ActiveFrom, PolicyPin, PolicyVersion, Tenant
from veilstream.policy.document import Policy, parse_policy
from veilstream.policy.state import active_key, tenant_key, version_key
from veilstream.policy.view import PolicyNotYet, PolicyView

CODEC = Codec()
ACME = Tenant("acme", "acme/1", b"k" * 32, 0, 0, allowed_policies=("other", "ghost", "drafts"))


def document(policy: str, version: str) -> Policy:
    return parse_policy({"id": policy, "version": version})


def version(policy: str, number: str, created_ms: int, status: str = "active") -> PolicyVersion:
    doc = document(policy, number)
    return PolicyVersion(policy, number, doc.digest, doc.canonical.decode(), "actor_x", created_ms, status)


def active(policy: str, number: str, from_ms: int) -> ActiveFrom:
    return ActiveFrom(policy, number, document(policy, number).digest, from_ms)


@dataclass
class Feed:
    """A view and the offset of the next record it is given."""

    view: PolicyView
    offset: int = 100

    def put(self, key: bytes, value: object | None) -> None:
        self.view.apply(key, None if value is None else CODEC.encode(value), self.offset)
        self.offset += 1


@pytest.fixture
def feed() -> Iterator[Feed]:
    fed = Feed(PolicyView(CODEC))
    fed.put(tenant_key("acme"), ACME)
    rows = [
        version("default", "1.0.0", 1000), version("default", "2.0.0", 1900), version("other", "1.0.0", 1000),
        version("other", "1.9.0", 1200), version("other", "1.10.0", 1100), version("other", "3.0.0-rc.1", 1000),
        version("other", "9.0.0", 1000, "deprecated"), version("drafts", "1.0.0-rc.1", 1000),
    ]  # fmt: skip
    for row in rows:
        fed.put(version_key(row.policy, row.version), row)
    fed.put(active_key("acme"), Activation("acme", active("default", "2.0.0", 3000), (
        active("other", "1.0.0", 2000), active("default", "1.0.0", 1000),
    )))  # fmt: skip
    yield fed


@pytest.mark.parametrize(
    ("at_ms", "policy", "number"),
    [
        (3001, "default", "2.0.0"), (3000, "default", "2.0.0"), (2999, "other", "1.0.0"),
        (2000, "other", "1.0.0"), (1999, "default", "1.0.0"), (1000, "default", "1.0.0"),
        (999, "default", "1.0.0"), (0, "default", "1.0.0"),
    ],
    ids=[
        "after the last", "exactly at it", "one ms before", "at the one before", "one ms before that", "at the first",
        "older than all: the oldest", "long before",
    ],
)  # fmt: skip
def test_a_record_is_judged_under_the_version_in_force_at_its_broker_time(
    feed: Feed, at_ms: int, policy: str, number: str
) -> None:
    """A version is in force from its millisecond on; a record older than all that is known gets the oldest."""
    assert feed.view.pin("acme", at_ms, None) == PolicyPin(policy, number, document(policy, number).digest, 109)


def test_of_two_activations_in_one_millisecond_the_later_rules(feed: Feed) -> None:
    """The order of commands decides, not the clock; also where the clock went back."""
    feed.put(active_key("acme"), Activation("acme", active("other", "1.0.0", 2990), (
        active("default", "2.0.0", 3000), active("default", "1.0.0", 2990),
    )))  # fmt: skip
    assert feed.view.pin("acme", 2990, None).policy == "other"
    assert feed.view.pin("acme", 3000, None).policy == "other"


@pytest.mark.parametrize(
    ("at_ms", "requested", "number"),
    [
        (3000, "default", "2.0.0"), (1999, "default", "1.0.0"), (2500, "other", "1.0.0"), (3000, "other", "1.10.0"),
        (1150, "other", "1.10.0"), (1099, "other", "1.0.0"), (999, "other", "1.0.0"),
    ],
    ids=[
        "the one in force", "the one in force then", "in force: its version, not the highest",
        "not in force: the highest release", "by semver, not by time", "only what stood then", "before all: what came first",
    ],
)  # fmt: skip
def test_a_requested_policy(feed: Feed, at_ms: int, requested: str, number: str) -> None:
    """In force: its version. Allowed: the highest release that stood at the time; no pre-release, nothing deprecated."""
    pin = feed.view.pin("acme", at_ms, requested)
    assert (pin.policy, pin.version) == (requested, number)


@pytest.mark.parametrize(
    ("requested", "code"),
    [
        ("strict", "policy_not_allowed"), ("Other", "policy_not_allowed"), ("", "policy_not_allowed"),
        ("ghost", "unknown_policy"), ("drafts", "unknown_policy"),
    ],
)  # fmt: skip
def test_a_requested_policy_that_may_not_be_used(feed: Feed, requested: str, code: str) -> None:
    """Not allowed says nothing about whether it exists; allowed without a release is unknown. The record's fault."""
    with pytest.raises(RecordError) as caught:
        feed.view.pin("acme", 3000, requested)
    assert caught.value.reason_code == code


def test_nothing_active_here_yet_is_the_tenants_fault(feed: Feed) -> None:
    """It waits and fails closed; others go on."""
    with pytest.raises(TenantError) as caught:
        feed.view.pin("nobody", 3000, None)
    assert (caught.value.reason_code, caught.value.fault) == ("policy_unavailable", Fault.TENANT)


def test_a_pinned_version_is_parsed_once(feed: Feed) -> None:
    """The same object each time: parsing costs a hundred times the look-up."""
    pin = feed.view.pin("acme", 3000, None)
    found = feed.view.document(pin.policy, pin.version, pin.digest)
    assert found == document("default", "2.0.0")
    assert feed.view.document(pin.policy, pin.version, pin.digest) is found


def changed(row: PolicyVersion, **fields: str) -> PolicyVersion:
    return PolicyVersion(**{name: fields.get(name, getattr(row, name)) for name in row.__slots__})


GOOD = version("late", "1.0.0", 5000)
UNREADABLE = '{"id":"late","version":"1.0.0","of_a_later_release":1}'


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (None, "the pinned policy version has not reached this worker yet"),
        (
            changed(GOOD, digest="0" * 64),
            "the policy version here is not the pinned one (its digest differs): compare veil.state",
        ),
        (
            changed(GOOD, document=UNREADABLE),
            "the policy version here is not the pinned one (its digest differs): compare veil.state",
        ),
    ],
    ids=["not here yet", "another digest", "bytes that are not the digest's"],
)
def test_a_version_that_is_not_the_pinned_one_is_not_used(feed: Feed, row: PolicyVersion | None, message: str) -> None:
    """Not here, or not by its digest: not yet; once it is here it is used."""
    key = version_key("late", "1.0.0")
    if row is not None:
        feed.put(key, row)
    with pytest.raises(PolicyNotYet) as caught:
        feed.view.document("late", "1.0.0", GOOD.digest)
    assert str(caught.value) == message
    assert caught.value.reason_code == "policy_unavailable"
    feed.put(key, GOOD)
    assert feed.view.document("late", "1.0.0", GOOD.digest) == document("late", "1.0.0")


def test_a_version_of_a_later_release_fails_closed(feed: Feed) -> None:
    """Its digest is right but this release cannot read all it asks: the tenant waits, nothing is left out."""
    digest = hashlib.sha256(UNREADABLE.encode()).hexdigest()
    feed.put(version_key("late", "1.0.0"), changed(GOOD, document=UNREADABLE, digest=digest))
    with pytest.raises(PolicyNotYet) as caught:
        feed.view.document("late", "1.0.0", digest)
    assert str(caught.value) == "the pinned policy version uses what this release lacks: upgrade this agent"


def test_the_view_follows_changes_and_deletions(feed: Feed) -> None:
    """A row that was read before is read anew once it has changed; a deleted one is gone."""
    assert feed.view.tenant("acme") == ACME
    renamed = Tenant("acme", "acme/1", b"k" * 32, 0, 0, name="Acme")
    feed.put(tenant_key("acme"), renamed)
    assert feed.view.tenant("acme") == renamed
    feed.put(tenant_key("acme"), None)
    feed.put(version_key("other", "1.10.0"), None)
    assert feed.view.tenant("acme") is None
    assert feed.view.state_offset == 112


def test_the_row_of_the_operations_key_is_no_tenant(feed: Feed) -> None:
    """A record without a tenant can never be admitted under it."""
    feed.put(tenant_key(""), Tenant("", "operations/1", b"k" * 32, 0, 0))
    assert feed.view.tenant("") is None


def test_keys_of_a_later_release_are_no_error(feed: Feed) -> None:
    """`rollout/R` and what comes after it only move the offset."""
    feed.view.apply(b"rollout/r1", b"not for us", 500)
    assert feed.view.state_offset == 500
    assert feed.view.pin("acme", 3000, None).state_offset == 500
