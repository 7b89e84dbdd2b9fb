"""Vault's transit engine as key service: asked as its API wants, each way it can fail told apart, and nothing else asked.

Its server is a double here; tests/pipeline/test_vault.py holds the same table against the real one.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.key_promises import ROOT, acme_under, opens_for_its_tenant_alone, suffers
from tests.vault_rigs import KEY, TROUBLES, Double, Rig, context_of, double
from veilstream.contracts.errors import ConfigError, RecordError, VeilError, WorldError
from veilstream.keys import vault_server as asking
from veilstream.keys.keyring import KeyRing, new_key
from veilstream.keys.providers import key_service
from veilstream.keys.service import KeyContext, KeyService
from veilstream.settings import Settings

ACME = acme_under(KEY)


@pytest.fixture
def rig() -> Iterator[Double]:
    with double() as rig:
        yield rig


def service(rig: Double, **own: Any) -> KeyService:
    given: dict[str, Any] = {
        "vault_addr": rig.address, "vault_hosts": rig.address.removeprefix("http://"), "vault_key": KEY,
        "vault_token": rig.token,
    }  # fmt: skip
    return key_service(Settings(key_service="vault", **(given | own)))


def test_a_key_wrapped_there_unwraps_in_its_context_alone(rig: Double) -> None:
    """The context is the tenant's, the associated data the key's; what is wrapped for one opens as no other."""
    one = service(rig, vault_namespace="team/veil")
    wrapped = one.wrap(ROOT, ACME)
    assert wrapped.startswith(b"vault:v1:")
    assert one.unwrap(wrapped, ACME) == ROOT
    assert [path for path, _, _ in rig.asked] == ["transit/encrypt/veil", "transit/decrypt/veil"]
    for _, headers, body in rig.asked:
        assert (body["context"], body["associated_data"]) == (
            context_of("acme"), base64.b64encode(ACME.digest()).decode(),
        )  # fmt: skip
        assert (headers["X-Vault-Namespace"], headers["X-Vault-Request"]) == ("team/veil", "true")
    opens_for_its_tenant_alone(one, wrapped, KEY, wrapped[:-6] + b"AAAAAA", wrapped.replace(b"v1", b"v7"), b"\xff")


def test_operations_has_a_context_that_no_tenant_can_have(rig: Double) -> None:
    """No tenant id has parentheses."""
    service(rig).wrap(ROOT, KeyContext("operations/1", "", KEY))
    assert rig.asked[0][2]["context"] == context_of("(operations)")


def test_a_rotation_of_the_transit_key_needs_nothing(rig: Double) -> None:
    """Former versions open, new keys are under the new one."""
    one = service(rig)
    former = one.wrap(ROOT, ACME)
    rig.rotate()
    assert one.unwrap(former, ACME) == ROOT
    assert one.wrap(ROOT, ACME).startswith(b"vault:v2:")


@pytest.mark.parametrize(
    ("trouble", "error", "reason"), [row[1:] for row in TROUBLES], ids=[row[0] for row in TROUBLES]
)
def test_each_trouble_is_somebody_s_fault(
    rig: Double, trouble: Callable[[Rig], None], error: type[VeilError], reason: str
) -> None:
    """Of one key: its tenant's. Of the server, or of our token: the world's. Neither token nor what the server says is quoted."""
    said = suffers(service(rig), KEY, lambda: trouble(rig), error, reason)
    assert not any(word in said for word in ("double-token", "route entry", "1 error occurred"))


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b'{"errors": ["internal"]}', "away"), (502, b"<html>", "away"), (412, b"", "away"), (472, b"", "away"),
        (307, b"", "away"), (400, b"Client sent an HTTP request to an HTTPS server.", "away"), (400, b"[]", "away"),
        (400, b'{"errors": ["associated_data provided for non-AEAD cipher suite ed25519"]}', "away"),
        (400, b'{"errors": ["cipher: message authentication failed"]}', "refused"),
        (400, b'{"errors": ["invalid ciphertext length"]}', "refused"),
        (204, b"", "away"), (200, b"{}", "away"), (200, b"<html>", "away"), (200, b'{"data": {"plaintext": 5}}', "away"),
        (200, b'{"data": {"plaintext": "c2hvcnQ="}}', "away"), (200, b'{"data": {"plaintext": "?"}}', "away"),
        (200, b'{"data": {"plaintext": "' + b"A" * 70_000 + b'"}}', "away"),
    ],
)  # fmt: skip
def test_other_answers_are_the_worlds_fault(rig: Double, status: int, body: bytes, reason: str) -> None:
    """A redirect is not followed: the token would go along. What is no answer of the engine's is no key."""
    one = service(rig)
    wrapped = one.wrap(ROOT, ACME)
    rig.answers = lambda path: (status, body)
    with pytest.raises(WorldError) as caught:
        one.unwrap(wrapped, ACME)
    assert caught.value.reason_code == f"key_service_{reason}"
    assert [path for path, _, _ in rig.asked] == ["transit/encrypt/veil", "transit/decrypt/veil"]
    rig.answers = lambda path: None
    assert one.unwrap(wrapped, ACME) == ROOT, "its connections are good for the next request"


def test_a_denial_by_a_server_that_knows_no_token_is_the_worlds_fault(rig: Double) -> None:
    """Where the token cannot be looked up, nobody can say that the one tenant is denied; the operations key tells then."""
    one = service(rig)
    wrapped = one.wrap(ROOT, ACME)
    rig.answers = lambda path: (403, json.dumps({"errors": ["permission denied"]}).encode())
    with pytest.raises(WorldError, match="403"):
        one.unwrap(wrapped, ACME)


def test_nobody_there_is_the_worlds_fault_and_an_answer_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread comes back."""
    monkeypatch.setattr(asking, "ANSWER_S", 0.2)
    with double() as rig:
        one = service(rig)
        wrapped = one.wrap(ROOT, ACME)
        rig.answers = lambda path: time.sleep(1.0)
        with pytest.raises(WorldError, match="ReadTimeoutError"):
            one.unwrap(wrapped, ACME)
    with pytest.raises(WorldError, match="cannot be asked") as caught:
        service(rig).unwrap(wrapped, ACME)
    assert caught.value.reason_code == "key_service_away"


def test_a_region_has_its_own_key(rig: Double) -> None:
    """New keys of a tenant are wrapped in its region; all regions' keys open; one that is not named is not asked for."""
    both = service(rig, vault_key=f"eu={KEY}, us=us/transit/veil-us")
    us = both.for_region("us")
    assert (both.key, us.key) == (KEY, "us/transit/veil-us")
    us.wrap(ROOT, KeyContext("globex/1", "globex", us.key))
    assert rig.asked[-1][0] == "us/transit/encrypt/veil-us"
    with pytest.raises(RecordError) as caught:
        both.for_region("asia")
    assert caught.value.reason_code == "no_key_for_region"
    asked = len(rig.asked)
    with pytest.raises(WorldError, match="does not name"):
        both.unwrap(b"vault:v1:AAAA", KeyContext("acme/1", "acme", "secret/../transit/veil"))
    assert len(rig.asked) == asked


def test_a_token_file_is_read_for_each_request(rig: Double, tmp_path: Path) -> None:
    """A Vault agent writes a new one before the old one ends; one that is not there yet is waited for."""
    file = tmp_path / "token"
    one = service(rig, vault_token=None, vault_token_file=file)
    for broken in (None, b"", b"two\nlines", "tökén".encode()):
        if broken is not None:
            file.write_bytes(broken)
        with pytest.raises(WorldError, match="VEIL_VAULT_TOKEN_FILE"):
            one.wrap(ROOT, ACME)
    file.write_text(f"{rig.token}\n")
    wrapped = one.wrap(ROOT, ACME)
    rig.token = "renewed"
    file.write_text("renewed")
    assert one.unwrap(wrapped, ACME) == ROOT


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"vault_addr": None}, "VEIL_VAULT_ADDR"), ({"vault_addr": "vault:8200"}, "VEIL_VAULT_ADDR"),
        ({"vault_addr": "https://user:pw@vault"}, "VEIL_VAULT_ADDR"), ({"vault_addr": "https://vault/v1"}, "VEIL_VAULT_ADDR"),
        ({"vault_addr": "https://vault:8200"}, "VEIL_VAULT_HOSTS"),
        ({"vault_addr": "http://vault", "vault_hosts": "vault"}, "in the clear"),
        ({"vault_token": None}, "VEIL_VAULT_TOKEN"), ({"vault_token_file": "t"}, "one of them alone"),
        ({"vault_token": "a\nb"}, "no token"), ({"vault_key": None}, "VEIL_VAULT_KEY"), ({"vault_key": "veil"}, "VEIL_VAULT_KEY"),
        ({"vault_key": "transit/../sys"}, "VEIL_VAULT_KEY"), ({"vault_key": f"{KEY},{KEY}"}, "VEIL_VAULT_KEY"),
        ({"vault_key": "/transit/veil"}, "VEIL_VAULT_KEY"), ({"vault_key": "transit/"}, "VEIL_VAULT_KEY"),
        ({"vault_cafile": "/nowhere"}, "VEIL_VAULT_CAFILE"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_end_the_process_at_start(rig: Double, own: dict[str, Any], named: str) -> None:
    """With the variable's name, before anything is sent."""
    with pytest.raises(ConfigError, match=named) as caught:
        service(rig, **own)
    assert rig.token not in str(caught.value)
    assert rig.asked == []


def test_the_ring_s_tools_may_ask_it_at_once(rig: Double) -> None:
    """A tool that may block opens keys by lookups alone; the entry names the transit key."""
    one = service(rig)
    entry, keys = new_key(one, tenant="acme", key_id="acme/1", scope="tenant", created_ms=0)
    assert (entry.service, entry.service_key) == ("vault", KEY)
    ring = KeyRing(one)
    ring.apply(entry)
    assert ring.of_tenant("acme") == keys
    assert rig.token not in repr(one._server)  # type: ignore[attr-defined]
