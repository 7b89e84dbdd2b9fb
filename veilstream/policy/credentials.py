"""Commands about what a tenant proves itself with: its root key is rotated, one of its tokens is revoked."""

from __future__ import annotations

from dataclasses import replace

from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import PublicKey, Revocation
from veilstream.contracts.sealing import HPKE
from veilstream.contracts.token import use_id
from veilstream.policy.case import Case, Judgement
from veilstream.policy.state import revoked_key, tenant_key
from veilstream.policy.tenant_bodies import KeysRotate, TokenRevoke, tenant_json

KEY_VERSIONS_MAX = 1_000
"""Every version is kept, since it opens what was sealed under it, and all are destroyed in one transaction: a version a week
lasts for nineteen years."""
REVOKED_MAX_MS = 24 * 3_600_000
"""Tokens are short-lived. What is to be refused for longer is the signer's key, which leaves the key set, or the tenant, which is
suspended."""


def rotate(case: Case, body: KeysRotate) -> Judgement:
    """A new root key from now on. The former one opens what was sealed under it, and seals nothing more."""
    row = case.live_tenant()
    number = version_of_key_id(row.key_id)
    if body.replaces is not None and body.replaces != row.key_id:
        if body.replaces == f"{row.tenant}/{number - 1}":
            return Judgement(
                f"tenant/{row.tenant}", "that key is replaced already", tenant_json(row) | {"changed": False}
            )
        raise RecordError(
            "another key is in use than the one to be replaced: look with tenant.show, then decide again",
            code="key_changed",
        )
    if number >= KEY_VERSIONS_MAX:
        raise RecordError(
            f"the tenant has had {KEY_VERSIONS_MAX:,} keys, and no more are kept: create another tenant in its place",
            code="too_many_keys",
        )
    root, former = case.roots.rotated(row, case.place.at_ms)
    now = replace(
        row, key_id=root.key_id, public_key=root.public_key, changed_ms=case.place.at_ms, changed_offset=case.place.offset
    )  # fmt: skip
    new = () if root.entry is None else (root.entry,)
    return Judgement(
        f"tenant/{row.tenant}", f"{root.key_id} is in use; what was sealed under the former key still opens",
        tenant_json(now) | {"changed": True, "replaced": row.key_id},
        writes={tenant_key(row.tenant): case.codec.encode(now)},
        keys=(*new, former),  # in this order: there is an active key at every moment
        public_keys=(PublicKey(row.tenant, root.key_id, HPKE, root.public_key, row.region),),
    )  # fmt: skip


def revoke(case: Case, body: TokenRevoke) -> Judgement:
    """The token is refused from now on, until it has expired by itself. Until then is never shortened."""
    tenant, place = case.live_tenant().tenant, case.place
    most_ms = place.at_ms + REVOKED_MAX_MS
    until_ms = most_ms if body.until_ms is None else body.until_ms
    if not place.at_ms < until_ms <= most_ms:
        raise RecordError(
            "until_ms must be in the 24 hours from now on, broker time: a token that lives longer is refused by its key or its "
            "tenant, one that has expired needs no revocation",
            code="invalid_until",
        )
    token = use_id(tenant, body.id)
    resource, there = f"revoked/{tenant}/{token.hex()}", case.state.revocation(tenant, token)
    told = {"tenant": tenant, "token": token.hex()}
    if there is not None and there.until_ms >= until_ms:
        return Judgement(
            resource, "the token is revoked already", told | {"until_ms": there.until_ms, "changed": False}
        )
    row = Revocation(tenant, until_ms, place.at_ms, place.offset)
    return Judgement(
        resource, "the token is revoked", told | {"until_ms": until_ms, "changed": True},
        writes={revoked_key(tenant, token): case.codec.encode(row)},
    )  # fmt: skip


def version_of_key_id(key_id: str) -> int:
    """The number at the end of TENANT/n; 0 for any other id."""
    number = key_id.rpartition("/")[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
