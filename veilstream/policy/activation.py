"""Policy versions and activations as rows: what to write so that a version stands there, and is in force."""

from __future__ import annotations

from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Activation, ActiveFrom, PolicyPin, PolicyVersion
from veilstream.policy.case import Case
from veilstream.policy.document import Policy
from veilstream.policy.state import active_key, version_key

FORMER_MAX = 16


def version_of(case: Case, policy: Policy) -> tuple[PolicyVersion, dict[bytes, bytes]]:
    """The version's row, and what to write for it: nothing where it stands there. Raises RecordError `version_exists`."""
    there = case.state.version(policy.id, policy.version)
    if there is not None:
        if there.digest != policy.digest:
            raise RecordError(
                "there is such a version with another content, and versions never change: give it a new version",
                code="version_exists",
            )
        return there, {}
    row = PolicyVersion(
        policy.id, policy.version, policy.digest, policy.canonical.decode(), case.author, case.place.at_ms
    )  # fmt: skip
    return row, {version_key(policy.id, policy.version): case.codec.encode(row)}


def activation_of(case: Case, tenant: str, version: PolicyVersion) -> tuple[ActiveFrom, dict[bytes, bytes]]:
    """What is in force from now on, and what to write for it: nothing where it is in force already."""
    there = case.state.activation(tenant)
    if there is not None and (there.current.policy, there.current.version) == (version.policy, version.version):
        return there.current, {}
    active = ActiveFrom(version.policy, version.version, version.digest, case.place.at_ms)
    former = () if there is None else (there.current, *there.former)[:FORMER_MAX]
    return active, {active_key(tenant): case.codec.encode(Activation(tenant, active, former))}


def pin_of(version: PolicyVersion) -> PolicyPin:
    """What an audit event names of a version."""
    return PolicyPin(version.policy, version.version, version.digest)
