"""Tokens on a producer's side: settings, the client's signer, `veil token`."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from agents.ingest.gate import app as gate_app
from tests.unit.token_bench import NOW_S, OWN, VALUE, jwk, key_set
from veilstream.cli.main import main
from veilstream.client.async_client import AsyncClient
from veilstream.client.token import TokenSigner
from veilstream.contracts.errors import ConfigError
from veilstream.contracts.records import Content, Request
from veilstream.contracts.token import HEADER, use_id
from veilstream.settings import Settings
from veilstream.tenancy.token_check import check_token, presented
from veilstream.tenancy.token_keys import KeySet, parse_key_set
from veilstream.tenancy.token_rules import TokenRules, rules_of

RULES = TokenRules(required=True)
URL = "https://issuer.example/jwks.json"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        if name.startswith(("token_", "bearer")):
            monkeypatch.delenv(f"VEIL_{name.upper()}", raising=False)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"token_mode": "off", "token_keys": ""},
        {"token_mode": "required", "token_keys": "/etc/veil/keys.json"},
        {"token_mode": "optional", "token_keys": URL, "token_keys_hosts": "a.example, ISSUER.example"},
        {
            "token_mode": "required",
            "token_keys": "http://issuer.example:8443/k",
            "token_keys_hosts": "issuer.example:8443",
        },
        {"token_mode": "required", "token_keys": "http://[::1]:8/k", "token_keys_hosts": "[::1]:8"},
        {
            "token_mode": "required",
            "token_keys": "k",
            "bearer": True,
            "bearer_issuer": "x",
            "bearer_tenant_claim": "org",
        },
        {"token_signing_key": "k.pem", "token_key_id": "k", "token_subject": "shop"},
    ],
)
def test_settings_that_go_together(given: dict[str, Any]) -> None:
    """Nothing is read yet: only what is said is checked."""
    rules = rules_of(Settings(**given))
    assert (rules is None) == (given.get("token_mode", "off") == "off")
    assert rules is None or (rules.bearer is None) != given.get("bearer", False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"token_mode": "required"}, "needs VEIL_TOKEN_KEYS"),
        ({"token_mode": "optional", "token_keys": ""}, "needs VEIL_TOKEN_KEYS"),
        ({"token_keys": "keys.json"}, "VEIL_TOKEN_MODE is off"),
        ({"bearer": True}, "VEIL_BEARER is set, but VEIL_TOKEN_MODE is off"),
        ({"bearer_issuer": "x"}, "VEIL_BEARER_ISSUER is set without VEIL_BEARER"),
        ({"token_mode": "on"}, "VEIL_TOKEN_MODE"),
        ({"token_mode": "required", "token_keys": URL}, "VEIL_TOKEN_KEYS_HOSTS"),
        ({"token_mode": "required", "token_keys": URL, "token_keys_hosts": "example"}, "VEIL_TOKEN_KEYS_HOSTS"),
        ({"token_mode": "required", "token_keys": URL, "token_keys_hosts": "issuer.example:443"}, "VEIL_TOKEN_KEYS_HOSTS"),
        ({"token_mode": "required", "token_keys": "https://issuer.example:8443/k", "token_keys_hosts": "issuer.example"},
         "issuer.example:8443"),
        ({"token_mode": "required", "token_keys": "https://issuer.example@evil.example/k",
          "token_keys_hosts": "issuer.example"}, "without user"),
        ({"token_mode": "required", "token_keys": "https://u:hush@issuer.example/k", "token_keys_hosts": "issuer.example"},
         "without user"),
        ({"token_mode": "required", "token_keys": "ftp://issuer.example/k", "token_keys_hosts": "issuer.example"}, "neither"),
        ({"token_mode": "required", "token_keys": "https:///k", "token_keys_hosts": ""}, "neither"),
        ({"token_mode": "required", "token_keys": "https://x:99999999/k", "token_keys_hosts": "x"}, "neither"),
        ({"token_keys_refresh_s": 7200}, "VEIL_TOKEN_KEYS_MAX_AGE_S"),
        ({"token_keys_interval_s": 301}, "VEIL_TOKEN_KEYS_REFRESH_S"),
        ({"token_signing_key": "k.pem"}, "VEIL_TOKEN_KEY_ID, VEIL_TOKEN_SUBJECT"),
        ({"token_subject": "shop", "token_key_id": "k"}, "VEIL_TOKEN_SIGNING_KEY"),
        ({"token_leeway_s": 301}, "VEIL_TOKEN_LEEWAY_S"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_end_the_start(given: dict[str, Any], said: str) -> None:
    """The message names the variable, and no password."""
    with pytest.raises(ConfigError, match=said) as caught:
        Settings(**given)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "events"),
    [
        ({}, ["tokens_not_checked"]),
        ({"token_mode": "optional", "token_keys": "k"}, ["tokens_optional"]),
        ({"token_mode": "required", "token_keys": "k", "bearer": True}, ["bearer_taken"]),
        (
            {"token_mode": "required", "token_keys": "http://a.example/k", "token_keys_hosts": "a.example"},
            ["token_keys_exposed"],
        ),
        ({"token_mode": "required", "token_keys": "http://127.0.0.1/k", "token_keys_hosts": "127.0.0.1"}, []),
        ({"token_mode": "required", "token_keys": "k"}, []),
    ],
)
def test_each_way_around_a_token_is_told_at_each_start(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], events: list[str]
) -> None:
    """A warning for each; none where every record must prove itself."""
    told: list[str] = []

    class Log:
        def warning(self, event: str, **_: object) -> None:
            told.append(event)

    monkeypatch.setattr(gate_app, "log", Log())
    settings = Settings(**given)
    view: Any = type("View", (), {"revoked": lambda *_: False})()
    counts: Any = None
    tokens = gate_app._tokens(settings, gate_app._followed_keys(settings), view, counts)
    assert told == events
    assert (tokens is None) == (settings.token_mode == "off")


def pem(folder: Path, key: Any = OWN, *, mode: int = 0o600, password: bytes | None = None) -> Path:
    path = folder / "key.pem"
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    path.chmod(mode)
    return path


def signing(path: Path) -> Settings:
    return Settings(token_signing_key=path, token_key_id="own", token_subject="shop")


def taken(token: str, keys: KeySet, *, tenant: str = "acme", value: bytes = VALUE, at_s: int = NOW_S) -> bytes:
    """What the gate remembers of it. Raises RecordError."""
    found = presented(((HEADER, token.encode()),), RULES)
    assert found is not None
    use = check_token(
        found, keys, RULES, tenant=tenant, value=value, received_ms=at_s * 1000, revoked=lambda *_: False
    )  # fmt: skip
    return use.id


def test_the_client_s_tokens_are_what_the_gate_takes() -> None:
    """Each is another, so that the same value can be sent twice; nothing of the key is in `repr`."""
    keys = parse_key_set(key_set(jwk(OWN, "own")))
    signer = TokenSigner(OWN, "own", "shop", "veilstream", clock=lambda: NOW_S + 0.9)
    first, second = signer.token("acme", VALUE), signer.token("acme", VALUE)
    assert taken(first, keys) != taken(second, keys)
    assert taken(first, keys, at_s=NOW_S + 329)
    assert "Ed25519" not in repr(signer)


async def test_a_client_sends_a_token_with_each_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the bytes that are sent, under the record's tenant; other topics get none, and without a key there is none."""
    sent: list[tuple[bytes, Any]] = []

    async def append(self: AsyncClient, topic: str, key: bytes | None, value: bytes, headers: Any = ()) -> Any:
        sent.append((value, headers))
        return asyncio.get_running_loop().create_future()

    monkeypatch.setattr(AsyncClient, "append", append)
    keys = parse_key_set(key_set(jwk(OWN, "own")))
    for settings in (signing(pem(tmp_path)), Settings()):
        await AsyncClient(settings=settings).send(Request("acme", Content(text="hi")), seal=False)
    (value, ((name, token),)), (_, none) = sent
    found = presented(((name, token),), RULES)
    assert (name, found is not None, none) == (HEADER, True, ())
    import time

    assert taken(token.decode(), keys, value=value, at_s=int(time.time()))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "none.pem", "cannot be read"),
        (lambda folder: pem(folder, mode=0o604), "chmod 600"),
        (lambda folder: pem(folder, generate_private_key(SECP256R1())), "Ed25519"),
        (lambda folder: pem(folder, password=b"x"), "unencrypted"),
        (lambda folder: Path(__file__), "chmod 600|Ed25519"),
    ],
)
def test_a_signing_key_that_is_no_use_ends_the_start(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    """The client says so before it connects."""
    with pytest.raises(ConfigError, match=said):
        AsyncClient(settings=signing(make(tmp_path)))


def veil(capsysbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[int, bytes, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsysbinary.readouterr()
    return int(ended.value.code or 0), told.out, told.err.decode()


def test_keygen_and_sign_make_what_the_gate_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Two keys come into one set, each for its tenants; a token signed with one is taken for its tenant, and no other."""
    keys, own = tmp_path / "keys.json", tmp_path / "own.pem"
    assert veil(capsysbinary, "token", "keygen", str(own), "--tenant", "acme", "--set", str(keys))[0] == 0
    code, out, err = veil(
        capsysbinary, "token", "keygen", str(tmp_path / "x.pem"), "--any-tenant", "--key-id", "i", "--set", str(keys)
    )
    assert (code, out, "VEIL_TOKEN_KEY_ID=i" in err) == (0, b"", True)
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    found = parse_key_set(keys.read_bytes())
    assert {kid: key.tenants for kid, key in found.keys.items()} == {"own": {"acme"}, "i": None}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    record = tmp_path / "record.json"
    record.write_bytes(VALUE)
    for name, value in {"SIGNING_KEY": str(own), "KEY_ID": "own", "SUBJECT": "shop"}.items():
        monkeypatch.setenv(f"VEIL_TOKEN_{name}", value)
    code, out, _ = veil(capsysbinary, "token", "sign", str(record), "--tenant", "acme")
    assert code == 0
    import time

    assert taken(out.decode().strip(), found, at_s=int(time.time()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("keygen", "{}/new.pem"), "--any-tenant"),
        (("keygen", "{}/new.pem", "--tenant", "acme", "--any-tenant"), "--any-tenant"),
        (("keygen", "{}/old.pem", "--any-tenant"), "never overwritten"),
        (("keygen", "{}/new.pem", "--any-tenant", "--set", "{}/old.pem"), "no JWK set"),
        (("keygen", "{}/new.pem", "--any-tenant", "--key-id", "old", "--set", "{}/keys.json"), "another name"),
        (("sign", "{}/old.pem", "--tenant", "acme"), "VEIL_TOKEN_SIGNING_KEY"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_made(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], arguments: tuple[str, ...], said: str
) -> None:
    """One line, exit code 1; no key is written over, none is left behind."""
    (tmp_path / "old.pem").write_text("old")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{"kid": "old"}]}))
    code, out, err = veil(capsysbinary, "token", *(one.replace("{}", str(tmp_path)) for one in arguments))
    assert (code, out, len(err.splitlines())) == (1, b"", 1)
    assert said in err
    assert not (tmp_path / "new.pem").exists()
    assert (tmp_path / "old.pem").read_text() == "old"


def test_keygen_prints_the_set_without_a_file(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """The public part alone."""
    code, out, _ = veil(capsysbinary, "token", "keygen", str(tmp_path / "k.pem"), "--any-tenant")
    (entry,) = json.loads(out)["keys"]
    assert (code, set(entry)) == (0, {"kty", "crv", "x", "kid", "alg", "use"})
    assert use_id("a", "b") != use_id("ab", "")
