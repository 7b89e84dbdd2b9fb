"""Options of `veil tenant`, and the body of a command they make."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from veilstream.contracts.errors import ConfigError

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="3 to 50 of A-Z a-z 0-9 _ -", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; nothing is changed.")]
Name = Annotated[str | None, typer.Option(help="For people.")]
Tier = Annotated[str | None, typer.Option(help="starter, standard or enterprise; default: starter.")]
Compliance = Annotated[str | None, typer.Option(help="basic, hipaa, gdpr or pci; default: basic.")]
VerdictKey = Annotated[
    str | None, typer.Option(metavar="BASE64", help="X25519 public key: contents of verdicts are sealed to it.")
]
AllowedPolicies = Annotated[
    list[str] | None, typer.Option("--allow-policy", metavar="ID", help="A policy records may ask for. Repeat it.")
]
LimitsGiven = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=N",
        help="Own limit beside the tier's; the stricter holds. requests_per_second, requests_per_minute, requests_per_day, "
        "characters_per_minute, characters_per_day, user_requests_per_minute, address_requests_per_minute; N is a number, or "
        "none. Repeat it.",
    ),
]
OwnTopics = Annotated[
    bool,
    typer.Option(
        "--own-topics",
        help="Tenant mode, for good: topics of its own that nobody else reads or writes. They are made first, so run it as who "
        "may make topics and entries.",
    ),
]
OwnPartitions = Annotated[
    int | None,
    typer.Option("--partitions", min=1, help="Of its own topics, chosen once; default: 4.", show_default=False),
]
OwnReplicas = Annotated[int, typer.Option("--replicas", min=1, help="Of its own topics; 3 in production.")]
NO_LIMIT = "none"


def body_of(given: dict[str, Any], limits: list[str] | None) -> dict[str, Any]:
    """The fields that were given, with the limits among them. Raises ConfigError."""
    body = {name: value for name, value in given.items() if value is not None}
    if limits:
        body["limits"] = dict(map(_limit, limits))
    return body


def _limit(text: str) -> tuple[str, int | None]:
    name, equals, number = text.partition("=")
    if equals and number == NO_LIMIT:
        return name, None
    if not equals or not (number.isascii() and number.isdigit()):
        raise ConfigError("a limit is NAME=NUMBER or NAME=none, as requests_per_day=500")
    return name, int(number)
