"""What the security settings of the connection to Kafka must be: checked as a whole, before anything connects."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from veilstream.contracts.errors import ConfigError

if TYPE_CHECKING:
    from veilstream.settings import Settings

PAGE: Final = "docs/security.md"

FILES: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
TLS: Final = (*FILES, "ssl_key_password")
SASL: Final = ("sasl_mechanism", "sasl_username", "sasl_password")

UNPROTECTED: Final[dict[str, Any]] = {
    "security_protocol": "PLAINTEXT",
    "ssl_check_hostname": True,
    **dict.fromkeys((*TLS, *SASL)),
}
"""Every setting of the connection's security, as the embedded broker on 127.0.0.1 has it."""


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"VEIL_{name.upper()}"


def check_security(settings: Settings) -> None:
    """Raises ConfigError: settings that contradict one another, or a file that cannot be used.

    1. Nothing may be set that the protocol leaves unused: whoever sets a password or an authority believes it is in force.
    2. SASL needs all of its three. 3. A key needs its certificate. 4. Files are read, and must be what they are said to be.
    """
    protocol = settings.security_protocol
    if not uses_tls(protocol):
        _unused(settings, TLS, "without TLS", "SSL or SASL_SSL")
        if not settings.ssl_check_hostname:
            raise _contradiction("ssl_check_hostname", protocol, "without TLS", "SSL or SASL_SSL")
    if not uses_sasl(protocol):
        _unused(settings, SASL, "without SASL", "SASL_SSL or SASL_PLAINTEXT")  # 1
    elif missing := [variable(name) for name in SASL if not _is_set(settings, name)]:  # 2
        raise ConfigError(
            f"VEIL_SECURITY_PROTOCOL is {protocol}, which needs {', '.join(missing)}: set what is missing ({PAGE})"
        )
    if settings.ssl_certfile is None:  # 3
        for name in ("ssl_keyfile", "ssl_key_password"):
            if _is_set(settings, name):
                raise ConfigError(
                    f"{variable(name)} is set without VEIL_SSL_CERTFILE: name the certificate of that key"
                )
    tls_context(settings)  # 4


def uses_tls(protocol: str) -> bool:
    """Whether connections of this protocol are encrypted."""
    return protocol in ("SSL", "SASL_SSL")


def uses_sasl(protocol: str) -> bool:
    """Whether connections of this protocol begin with a user's name and password."""
    return protocol in ("SASL_PLAINTEXT", "SASL_SSL")


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What TLS connections are made with; None where the protocol has no TLS. Raises ConfigError: a file that is no use."""
    if not uses_tls(settings.security_protocol):
        return None
    for name in FILES:
        if (path := getattr(settings, name)) is not None:
            _read(name, path)
    context = _trusting(settings.ssl_cafile)
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_certfile is not None:
        _show_certificate(context, settings)
    return context


def _trusting(cafile: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except (ssl.SSLError, ValueError):
        raise ConfigError(
            f"VEIL_SSL_CAFILE names {cafile}, which holds no certificate in PEM form (-----BEGIN CERTIFICATE-----): export the "
            "authority's certificate as PEM; a Java truststore (JKS, PKCS12) is not read"
        ) from None


def _show_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    assert settings.ssl_certfile is not None
    secret = settings.ssl_key_password
    try:
        # Without a password OpenSSL would ask on the terminal, and the process would stand still.
        context.load_cert_chain(
            settings.ssl_certfile, settings.ssl_keyfile, password=secret.get_secret_value() if secret else ""
        )
    except (ssl.SSLError, ValueError, OSError) as exc:
        key = (
            f"VEIL_SSL_KEYFILE ({settings.ssl_keyfile})"
            if settings.ssl_keyfile
            else "the same file (VEIL_SSL_KEYFILE is not set)"
        )
        reason = getattr(exc, "reason", None) or "unreadable"
        raise ConfigError(
            f"the certificate in VEIL_SSL_CERTFILE ({settings.ssl_certfile}) and its key in {key} do not load ({reason}): both "
            "must be PEM, the key must belong to the certificate, and an encrypted key needs its VEIL_SSL_KEY_PASSWORD"
        ) from None


def _read(name: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as exc:
        raise ConfigError(
            f"{variable(name)} names {path}, which cannot be read ({exc.strerror}): correct the path, or let this process's "
            "user read it"
        ) from None


def _unused(settings: Settings, names: tuple[str, ...], lacks: str, instead: str) -> None:
    for name in names:
        if _is_set(settings, name):
            raise _contradiction(name, settings.security_protocol, lacks, instead)


def _contradiction(name: str, protocol: str, lacks: str, instead: str) -> ConfigError:
    return ConfigError(
        f"{variable(name)} is set, but VEIL_SECURITY_PROTOCOL is {protocol}, which is {lacks}: set VEIL_SECURITY_PROTOCOL to "
        f"{instead}, or unset {variable(name)} ({PAGE})"
    )


def _is_set(settings: Settings, name: str) -> bool:
    return getattr(settings, name) is not None
