"""What every key service promises, whoever stands behind it: the tests of each hold it to this."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from veilstream.contracts.errors import VeilError, WorldError
from veilstream.keys.service import KeyContext, KeyService

ROOT = b"r" * 32


def acme_under(key: str) -> KeyContext:
    """Of the tenant acme's first key, wrapped by this key of the service."""
    return KeyContext("acme/1", "acme", key)


def opens_for_its_tenant_alone(one: KeyService, wrapped: bytes, key: str, *changed: bytes) -> None:
    """Of what `acme_under` wrapped: no other context opens it, and nothing that was `changed` opens."""
    acme = acme_under(key)
    others = (KeyContext("acme/1", "other", key), KeyContext("acme/2", "acme", key), KeyContext("acme/1", "", key))
    for raw, context in [
        *((wrapped, other) for other in others),
        *((raw, acme) for raw in (*changed, wrapped[:20], b"x")),
    ]:
        with pytest.raises(WorldError) as caught:
            one.unwrap(raw, context)
        assert caught.value.reason_code == "key_service_refused"
    assert one.unwrap(wrapped, acme) == ROOT


def suffers(one: KeyService, key: str, trouble: Callable[[], None], error: type[VeilError], reason: str) -> str:
    """What is said of a key that was wrapped before the trouble; nothing where it opens all the same (no `reason`)."""
    wrapped = one.wrap(ROOT, acme_under(key))
    trouble()
    if not reason:
        assert one.unwrap(wrapped, acme_under(key)) == ROOT
        return ""
    with pytest.raises(error) as caught:
        one.unwrap(wrapped, acme_under(key))
    assert (type(caught.value), caught.value.reason_code) == (error, reason)
    return str(caught.value)
