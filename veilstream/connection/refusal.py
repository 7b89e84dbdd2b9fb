"""Why a broker that answers does not let this process in.

Kafka's clients try again for ever and report nothing but "cannot connect". So where a first connection fails, it is made
once more by itself and looked at: what only a person can mend (a wrong password, an authority that is not trusted, the
port of another protocol) is told as such, and everything else is left to trying again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from veilstream.connection.probe import alert, listener
from veilstream.connection.rules import PAGE, uses_sasl, uses_tls
from veilstream.contracts.errors import ConfigError

PATIENCE_S: Final = 5.0
"""How long one server may take for each question of ours."""
ALERT_S: Final = 2.0
"""How long a broker may take to refuse our certificate after the handshake: this long we listen."""
BROKERS_MAX: Final = 5
"""So many brokers' own addresses are looked at: all are made alike, and a large cluster must not hold up the answer."""

_WRONG_NAME: Final = (62, 64)
"""OpenSSL's verify codes X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_EXPIRED: Final = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


async def refusal(options: Mapping[str, Any]) -> ConfigError | None:
    """What a person has to mend so that the cluster lets this process in.

    None where nobody answers, where it is let in by now, or where it cannot be told: then trying again may help.
    `options` are aiokafka's (options.py).

    The brokers' own addresses (advertised.listeners) count too: a certificate may be right for VEIL_BOOTSTRAP alone.
    """
    found: ConfigError | None = None
    for server in str(options["bootstrap_servers"]).split(","):
        brokers, refused = await _asked(server.strip(), options)
        found = found or refused
        if brokers is not None:
            others = [broker for broker in brokers if broker != server.strip()][:BROKERS_MAX]
            answers = [(await _asked(broker, options))[1] for broker in others]
            return next((answer for answer in answers if answer is not None), None)
    return found


def refusal_now(options: Mapping[str, Any]) -> ConfigError | None:
    """The same where no event loop runs."""
    return asyncio.run(refusal(options))


async def _asked(server: str, options: Mapping[str, Any]) -> tuple[list[str] | None, ConfigError | None]:
    """The addresses of all brokers, or why not; neither where nobody answers."""
    host, _, port = server.rpartition(":")
    try:
        return await _enter(host.strip("[]"), int(port), options), None
    except (OSError, KafkaError, TimeoutError, ValueError) as exc:
        return None, await _explained(exc, server, options)


async def _enter(host: str, port: int, options: Mapping[str, Any]) -> list[str]:
    """Connect, authenticate, ask something: a broker that wants SASL hangs up only at the question."""
    security = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    connection = await create_conn(host, port, request_timeout_ms=int(PATIENCE_S * 1000), **security)
    try:
        metadata = await connection.send(MetadataRequest([]))
    finally:
        connection.close()
    return [f"{broker[1]}:{broker[2]}" for broker in metadata.brokers]


async def _explained(exc: Exception, server: str, options: Mapping[str, Any]) -> ConfigError | None:
    match exc:
        case ssl.SSLCertVerificationError():
            return _untrusted(exc, server)
        case SaslAuthenticationFailed() | AuthenticationFailedError():
            return _wrong_password(server, options)
        case UnsupportedSaslMechanismError():
            return ConfigError(
                f"{server} does not take SASL mechanism {options['sasl_mechanism']}: set VEIL_SASL_MECHANISM to one that is "
                f"enabled on that listener (sasl.enabled.mechanisms), or VEIL_BOOTSTRAP to another listener ({PAGE})"
            )
        case IllegalSaslStateError():
            return _no_sasl(server, options)
    return await _by_protocol(exc, server, options)


async def _by_protocol(exc: Exception, server: str, options: Mapping[str, Any]) -> ConfigError | None:
    """Compare what the port speaks with what the settings say."""
    protocol = options.get("security_protocol", "PLAINTEXT")
    host, _, port = server.rpartition(":")
    address = (host.strip("[]"), int(port))
    speaks = await asyncio.to_thread(listener, *address, PATIENCE_S)
    if speaks == "plain" and uses_tls(protocol):
        return ConfigError(
            f"{server} does not speak TLS, and VEIL_SECURITY_PROTOCOL is {protocol}: set VEIL_BOOTSTRAP to the port of the "
            f"brokers' TLS listener, or VEIL_SECURITY_PROTOCOL to what this one speaks ({PAGE})"
        )
    if speaks == "tls" and not uses_tls(protocol):
        return ConfigError(
            f"{server} speaks TLS, and VEIL_SECURITY_PROTOCOL is {protocol}: set it to SSL or SASL_SSL, and VEIL_SSL_CAFILE "
            f"where the authority is your own ({PAGE})"
        )
    if speaks == "tls" and (reason := await asyncio.to_thread(alert, *address, options["ssl_context"], ALERT_S)):
        return ConfigError(
            f"{server} refuses this client in the TLS handshake ({reason}): set VEIL_SSL_CERTFILE and VEIL_SSL_KEYFILE to a "
            f"certificate, valid now, that the brokers' truststore accepts ({PAGE})"
        )
    if speaks is not None and not uses_sasl(protocol) and await _wants_sasl(*address, options):
        wanted = "SASL_SSL" if uses_tls(protocol) else "SASL_PLAINTEXT"
        return ConfigError(
            f"{server} wants a user's name and password, and VEIL_SECURITY_PROTOCOL is {protocol}: set it to {wanted}, with "
            f"VEIL_SASL_MECHANISM, VEIL_SASL_USERNAME and VEIL_SASL_PASSWORD ({PAGE})"
        )
    return None


async def _wants_sasl(host: str, port: int, options: Mapping[str, Any]) -> bool:
    """A listener without SASL answers the question for a mechanism with ILLEGAL_SASL_STATE."""
    security = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    try:
        connection = await create_conn(host, port, request_timeout_ms=int(PATIENCE_S * 1000), **security)
        try:
            answer = await connection.send(SaslHandShakeRequest("PLAIN"))
        finally:
            connection.close()
    except (OSError, KafkaError, TimeoutError):
        return False
    return bool(answer.error_code != IllegalSaslStateError.errno)


def _untrusted(exc: ssl.SSLCertVerificationError, server: str) -> ConfigError:
    if exc.verify_code in _WRONG_NAME:
        return ConfigError(
            f"the certificate of {server} is for another name: give VEIL_BOOTSTRAP (and the brokers' advertised.listeners) the "
            "name that is in the certificate, or have one made for this name; VEIL_SSL_CHECK_HOSTNAME=false gives the check up"
        )
    if exc.verify_code in _EXPIRED:
        return ConfigError(
            f"the certificate of {server} is not valid now ({exc.verify_message}): renew it, or set this machine's clock"
        )
    return ConfigError(
        f"the certificate of {server} is not trusted ({exc.verify_message}): set VEIL_SSL_CAFILE to the PEM file of the "
        f"authority that issued it ({PAGE})"
    )


def _wrong_password(server: str, options: Mapping[str, Any]) -> ConfigError:
    return ConfigError(
        f"{server} refuses user {options['sasl_plain_username']!r} ({options['sasl_mechanism']}): VEIL_SASL_USERNAME or "
        f"VEIL_SASL_PASSWORD is wrong, or the user has no credential for VEIL_SASL_MECHANISM on the brokers ({PAGE})"
    )


def _no_sasl(server: str, options: Mapping[str, Any]) -> ConfigError:
    protocol = options["security_protocol"]
    return ConfigError(
        f"{server} takes no SASL, and VEIL_SECURITY_PROTOCOL is {protocol}: set VEIL_BOOTSTRAP to the port of the brokers' "
        f"{protocol} listener, or VEIL_SECURITY_PROTOCOL to what this one speaks ({PAGE})"
    )
