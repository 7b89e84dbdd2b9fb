"""What a Kafka client of this process is told about the cluster: address and credentials, for each of the two libraries."""

from __future__ import annotations

from typing import Any

from veilstream.connection.rules import tls_context, uses_sasl, uses_tls
from veilstream.settings import Settings


def aiokafka_options(settings: Settings, bootstrap: str | None = None) -> dict[str, Any]:
    """Keyword arguments of aiokafka's producers, consumers and admin clients. They hold the password: never log them."""
    options: dict[str, Any] = {"bootstrap_servers": bootstrap or settings.bootstrap}
    protocol = settings.security_protocol
    if protocol == "PLAINTEXT":
        return options
    options |= {"security_protocol": protocol, "ssl_context": tls_context(settings)}
    if uses_sasl(protocol):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": _password(settings),
        }
    return options


def librdkafka_options(settings: Settings, bootstrap: str | None = None) -> dict[str, Any]:
    """The same for confluent_kafka's clients. They hold the password: never log them."""
    protocol = settings.security_protocol
    # `log_level`: the library writes to standard error by itself.
    options: dict[str, Any] = {"bootstrap.servers": bootstrap or settings.bootstrap, "log_level": 0}
    if protocol == "PLAINTEXT":
        return options
    options["security.protocol"] = protocol
    if uses_tls(protocol):
        options["ssl.endpoint.identification.algorithm"] = "https" if settings.ssl_check_hostname else "none"
        if settings.ssl_cafile is not None:
            options["ssl.ca.location"] = str(settings.ssl_cafile)
        if settings.ssl_certfile is not None:
            options["ssl.certificate.location"] = str(settings.ssl_certfile)
            options["ssl.key.location"] = str(settings.ssl_keyfile or settings.ssl_certfile)
            if settings.ssl_key_password is not None:
                options["ssl.key.password"] = settings.ssl_key_password.get_secret_value()
    if uses_sasl(protocol):
        options |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": _password(settings),
        }
    return options


def _password(settings: Settings) -> str:
    assert settings.sasl_password is not None, "checked when the settings were made"
    return settings.sasl_password.get_secret_value()
