"""What the gate opens: the keys that a batch needs, and what producers sealed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from veilstream.contracts.errors import RecordError, TenantError
from veilstream.contracts.records import Content, Refusal, Request
from veilstream.contracts.sealing import hpke_unseal
from veilstream.ingest.parse import Parsed, opened
from veilstream.keys.keyring import KeyRing
from veilstream.policy.view import PolicyView
from veilstream.tenancy.ids import is_session_id, is_tenant_id

WaitForKey = Callable[[str, str | None], Awaitable[bool]]
"""Waits, bounded, until a tenant's key is known and open here: the one with an id, or the one that seals."""


def keys_of(keyring: KeyRing, parsed: Iterable[Parsed]) -> Iterator[tuple[str, str | None]]:
    """Of each record the key that seals it, the one that it was sealed to, and the one its lane comes from."""
    for one in parsed:
        if one.tenant is None:
            continue
        yield one.tenant, None
        if (first := keyring.first(one.tenant)) is not None:
            yield one.tenant, first
        if one.request is not None and not isinstance(one.request.payload, Content):
            yield one.tenant, one.request.payload.key_id


def names_a_stranger(view: PolicyView, parsed: Iterable[Parsed]) -> bool:
    """Whether a record names a tenant that is not known here: there is none, or it was made a moment ago. Raises WorldError."""
    named = {one.tenant for one in parsed if one.tenant is not None and is_tenant_id(one.tenant)}
    return any(view.tenant(tenant) is None for tenant in named)


async def opened_request(
    keyring: KeyRing, wait_for_named_key: WaitForKey, request: Request
) -> tuple[Request | None, list[Refusal]]:
    """The request with its content open. Raises RecordError, TenantError, ErasedError, WorldError."""
    if isinstance(request.payload, Content):
        return request, []
    key_id = request.payload.key_id
    await wait_for_named_key(request.tenant, key_id)
    try:
        keys = keyring.by_id(key_id, request.tenant)
    except TenantError:
        if keyring.has(request.tenant, key_id):  # it is the tenant's, and cannot be had now
            raise
        reason = "sealed to a key that is not the tenant's: take the present one from veil.public-keys"
        raise RecordError(reason, code="sealed_to_unknown_key") from None
    return opened(request, hpke_unseal(keys.hpke_private, request.payload, request.tenant))


def named_session(keyring: KeyRing, parsed: Parsed) -> str | None:
    """The session that a record names, also inside of what its producer sealed. Raises as that is opened."""
    request = parsed.request
    if request is not None and not isinstance(request.payload, Content):
        keys = keyring.by_id(request.payload.key_id, request.tenant)
        request, _ = opened(request, hpke_unseal(keys.hpke_private, request.payload, request.tenant))
    return None if request is None or request.session is None or not is_session_id(request.session) else request.session
