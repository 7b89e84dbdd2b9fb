"""Security of the connection to Kafka: which settings go together, and what each client library is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.certificates import make_authority
from veilstream.connection.options import aiokafka_options, librdkafka_options
from veilstream.connection.rules import FILES, UNPROTECTED, variable
from veilstream.contracts.errors import ConfigError
from veilstream.runtime.kafka import faust_credentials
from veilstream.settings import Settings
from veilstream.stack.agents import agent_program

USER = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "veil-gate", "sasl_password": "hush"}
READ_AS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(FILES, Path),
    **dict.fromkeys(("ssl_key_password", "sasl_password"), SecretStr),
    "ssl_check_hostname": {"false": False}.__getitem__,
}
"""What becomes of a variable's text; any other setting is the text."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEM files: an authority `own`, a certificate `me` with an encrypted key, one `open` without; and files of no use."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = make_authority(folder, "own")
    authority.issue("me", password="locked")
    authority.issue("open")
    (folder / "words.pem").write_text("no certificate")
    (folder / "empty.pem").write_bytes(b"")
    return folder


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UNPROTECTED:
        monkeypatch.delenv(variable(name), raising=False)


def settings(files: Path, given: dict[str, str]) -> Settings:
    """Settings with `{}` in a value standing for the folder of certificates."""
    return Settings(**{name: value.replace("{}", str(files)) for name, value in given.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"security_protocol": "SSL"},
        {"security_protocol": "SSL", "ssl_cafile": "{}/own-ca.pem"},
        {"security_protocol": "SSL", "ssl_check_hostname": "false"},
        {"security_protocol": "SSL", "ssl_certfile": "{}/open.crt", "ssl_keyfile": "{}/open.key"},
        {"security_protocol": "SSL", "ssl_certfile": "{}/open.pem"},
        {"security_protocol": "SSL", "ssl_certfile": "{}/me.pem", "ssl_key_password": "locked"},
        {"security_protocol": "SASL_PLAINTEXT", **USER},
        {"security_protocol": "SASL_SSL", **USER, "sasl_mechanism": "PLAIN"},
        {"security_protocol": "SASL_SSL", **USER, "ssl_certfile": "{}/open.pem"},
        {"ssl_cafile": "", "ssl_key_password": "", "sasl_mechanism": "", "sasl_username": "", "sasl_password": ""},
    ],
)
def test_settings_that_go_together(files: Path, given: dict[str, str]) -> None:
    """Each way to connect is taken as it is given, the rest stays unprotected; an empty variable is one that is not set."""
    made = settings(files, given)
    taken = {name: READ_AS.get(name, str)(value.replace("{}", str(files))) for name, value in given.items() if value}
    assert {name: getattr(made, name) for name in UNPROTECTED} == UNPROTECTED | taken


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"security_protocol": "TLS"}, ("VEIL_SECURITY_PROTOCOL", "'SASL_SSL'")),
        ({"security_protocol": "SASL_SSL", **USER, "sasl_mechanism": "GSSAPI"}, ("VEIL_SASL_MECHANISM", "'PLAIN'")),
        ({"ssl_cafile": "{}/own-ca.pem"}, ("VEIL_SSL_CAFILE is set", "is PLAINTEXT", "SSL or SASL_SSL")),
        ({"ssl_check_hostname": "false"}, ("VEIL_SSL_CHECK_HOSTNAME is set", "is PLAINTEXT")),
        ({"sasl_password": "hush"}, ("VEIL_SASL_PASSWORD is set", "is PLAINTEXT", "SASL_SSL or SASL_PLAINTEXT")),
        ({"security_protocol": "SSL", **USER}, ("VEIL_SASL_MECHANISM is set", "is SSL", "without SASL")),
        ({"security_protocol": "SASL_PLAINTEXT", **USER, "ssl_cafile": "x"}, ("VEIL_SSL_CAFILE is set", "without TLS")),
        ({"security_protocol": "SASL_SSL"}, ("VEIL_SASL_MECHANISM, VEIL_SASL_USERNAME, VEIL_SASL_PASSWORD",)),
        ({"security_protocol": "SASL_SSL", **USER, "sasl_username": ""}, ("needs VEIL_SASL_USERNAME:",)),
        ({"security_protocol": "SASL_SSL", **USER, "sasl_password": ""}, ("needs VEIL_SASL_PASSWORD:",)),
        ({"security_protocol": "SSL", "ssl_cafile": "{}/none.pem"}, ("VEIL_SSL_CAFILE", "none.pem", "No such file")),
        ({"security_protocol": "SSL", "ssl_cafile": "{}"}, ("VEIL_SSL_CAFILE", "Is a directory")),
        ({"security_protocol": "SSL", "ssl_cafile": "{}/words.pem"}, ("VEIL_SSL_CAFILE", "no certificate in PEM")),
        ({"security_protocol": "SSL", "ssl_cafile": "{}/empty.pem"}, ("VEIL_SSL_CAFILE", "no certificate in PEM")),
        ({"security_protocol": "SSL", "ssl_keyfile": "{}/open.key"}, ("VEIL_SSL_KEYFILE", "without VEIL_SSL_CERTFILE")),
        ({"security_protocol": "SSL", "ssl_key_password": "x"}, ("VEIL_SSL_KEY_PASSWORD", "without VEIL_SSL_CERTFILE")),
        ({"security_protocol": "SSL", "ssl_certfile": "{}/open.crt"}, ("do not load", "VEIL_SSL_KEYFILE is not set")),
        ({"security_protocol": "SSL", "ssl_certfile": "{}/none.crt"}, ("VEIL_SSL_CERTFILE", "No such file")),
        (
            {"security_protocol": "SSL", "ssl_certfile": "{}/open.crt", "ssl_keyfile": "{}/me.key", "ssl_key_password": "locked"},
            ("do not load", "must belong to the certificate"),
        ),
        ({"security_protocol": "SSL", "ssl_certfile": "{}/me.pem"}, ("do not load", "VEIL_SSL_KEY_PASSWORD")),
        (
            {"security_protocol": "SSL", "ssl_certfile": "{}/me.pem", "ssl_key_password": "guessed"},
            ("do not load", "VEIL_SSL_KEY_PASSWORD"),
        ),
    ],
)  # fmt: skip
def test_settings_that_contradict_one_another_are_named(
    files: Path, given: dict[str, str], said: tuple[str, ...]
) -> None:
    """A wrong combination or file is refused before anything connects, by the variables' names and without a password."""
    with pytest.raises(ConfigError) as refused:
        settings(files, given)
    message = str(refused.value)
    assert all(part in message for part in said), message
    assert not any(secret in message for secret in ("hush", "locked", "guessed"))


def test_a_wrong_value_of_any_setting_is_told_without_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable and what it takes; values are not quoted, since one of them may be a secret."""
    monkeypatch.setenv("VEIL_POOL_WORKERS", "s3cret")
    monkeypatch.setenv("VEIL_LOG_LEVEL", "loud")
    with pytest.raises(ConfigError) as refused:
        Settings()
    assert "VEIL_POOL_WORKERS: " in str(refused.value)
    assert "VEIL_LOG_LEVEL: " in str(refused.value)
    assert "s3cret" not in str(refused.value)


def told(settings: Settings) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Options of both libraries without the address, and Faust's credentials."""
    ours, theirs = aiokafka_options(settings, "a:1"), librdkafka_options(settings, "a:1")
    assert (ours.pop("bootstrap_servers"), theirs.pop("bootstrap.servers"), theirs.pop("log_level")) == (
        "a:1",
        "a:1",
        0,
    )
    return ours, theirs, faust_credentials(ours)


def test_plaintext_tells_nobody_anything(files: Path) -> None:
    """The default is as it was without these settings."""
    assert told(settings(files, {})) == ({}, {}, None)


def test_both_libraries_and_faust_are_told_the_same(files: Path) -> None:
    """SASL_SSL with everything set reaches aiokafka, librdkafka and Faust's driver alike."""
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    given = {
        "security_protocol": "SASL_SSL",
        **USER,
        "ssl_cafile": "{}/own-ca.pem",
        "ssl_certfile": "{}/me.crt",
        "ssl_keyfile": "{}/me.key",
        "ssl_key_password": "locked",
    }
    ours, theirs, credentials = told(settings(files, given))
    context = ours["ssl_context"]
    assert ours == {
        "security_protocol": "SASL_SSL",
        "ssl_context": context,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "veil-gate",
        "sasl_plain_password": "hush",
    }
    assert (context.check_hostname, len(context.get_ca_certs())) == (True, 1)
    assert theirs == {
        "security.protocol": "SASL_SSL",
        "ssl.endpoint.identification.algorithm": "https",
        "ssl.ca.location": f"{files}/own-ca.pem",
        "ssl.certificate.location": f"{files}/me.crt",
        "ssl.key.location": f"{files}/me.key",
        "ssl.key.password": "locked",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "veil-gate",
        "sasl.password": "hush",
    }
    assert credentials_to_aiokafka_auth(credentials) == ours
    assert "hush" not in repr(credentials)


@pytest.mark.parametrize("protocol", ["SSL", "SASL_PLAINTEXT"])
def test_faust_is_told_what_aiokafka_is_told(files: Path, protocol: str) -> None:
    """Faust's driver makes of its credentials the keyword arguments every other client has."""
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    ours, _, credentials = told(settings(files, {"security_protocol": protocol} | (USER if "SASL" in protocol else {})))
    assert credentials_to_aiokafka_auth(credentials) == ours


def test_hostnames_are_checked_unless_told_otherwise(files: Path) -> None:
    """VEIL_SSL_CHECK_HOSTNAME=false gives up the name for both libraries, and nothing else of the check."""
    ours, theirs, _ = told(settings(files, {"security_protocol": "SSL", "ssl_check_hostname": "false"}))
    assert ours["ssl_context"].check_hostname is False
    assert ours["ssl_context"].verify_mode.name == "CERT_REQUIRED"
    assert theirs["ssl.endpoint.identification.algorithm"] == "none"


def test_the_embedded_stack_is_plaintext_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials in the environment are for another cluster: neither `veil up` nor its agents use them on 127.0.0.1."""
    environ = {"VEIL_SECURITY_PROTOCOL": "SASL_SSL"} | {variable(name): value for name, value in USER.items()}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert Settings().security_protocol == "SASL_SSL"
    own = Settings(**UNPROTECTED, data_dir=tmp_path)
    assert {name: getattr(own, name) for name in UNPROTECTED} == UNPROTECTED
    assert not environ.keys() & agent_program("gate", own, environ=environ).env.keys()
    other = Settings(data_dir=tmp_path)
    assert environ.items() <= dict(agent_program("gate", other, environ=environ).env).items()


def test_secrets_are_not_shown(files: Path) -> None:
    """Printing the settings shows no password."""
    given = settings(files, {"security_protocol": "SASL_SSL", **USER})
    assert isinstance(given.sasl_password, SecretStr)
    assert "hush" not in repr(given)
