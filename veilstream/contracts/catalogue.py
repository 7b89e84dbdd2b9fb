"""The topic catalogue (topics/catalogue.yaml), typed. Names of topics are written nowhere else in the code."""

from __future__ import annotations

from functools import cache
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from veilstream.contracts.errors import ConfigError
from veilstream.contracts.resources import data_path

REQUESTS = "veil.requests"
GATED = "veil.gated"
ADMITTED = "veil.admitted"
OVERFLOW = "veil.admitted.overflow"
FINDINGS = "veil.findings"
VERDICTS = "veil.verdicts"
AUDIT = "veil.audit"
DEAD_LETTERS = "veil.dead-letters"
COMMANDS = "veil.commands"
COMMAND_RESULTS = "veil.command.results"
STATE = "veil.state"
KEYS = "veil.keys"
SESSION_KEYS = "veil.session-keys"
PUBLIC_KEYS = "veil.public-keys"
SCHEMAS = "veil.schemas"
QUOTAS = "veil.ingest.quotas"
REDRIVE = "veil.redrive"


TENANT_ROLE = "clients."
"""How the role of one tenant's people begins: `clients.T`. No other role, and no tenant id, has a dot."""


def is_person(role: str) -> bool:
    """Whether a role is people's (and their programs'), not an agent's."""
    return role in ("clients", "operators") or role.startswith(TENANT_ROLE)


class Topic(BaseModel):
    """One row of the catalogue; the fields are explained at its head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    about: str
    schemas: tuple[str, ...]
    key: str
    partitions: Literal["chain"] | int
    timestamps: Literal["LogAppendTime", "CreateTime"]
    cleanup: Literal["delete", "compact", "compact,delete"]
    retention_hours: Literal["forever"] | int
    max_bytes: int
    visibility: Literal["public", "trusted"]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    watchers: tuple[str, ...] = ()
    paced: bool = False
    own: bool = False
    reserved: bool = False

    def partition_count(self, chain_partitions: int) -> int:
        """Partitions on a cluster whose chain topics have `chain_partitions`."""
        return chain_partitions if self.partitions == "chain" else self.partitions

    def configs(self, *, replicas: int) -> dict[str, str]:
        """Broker configuration of the topic; `replicas` sets how many must have a record before it counts as written."""
        wanted = {
            "cleanup.policy": self.cleanup,
            "message.timestamp.type": self.timestamps,
            "max.message.bytes": str(self.max_bytes),
            "retention.ms": "-1" if self.retention_hours == "forever" else str(self.retention_hours * 3_600_000),
            "min.insync.replicas": str(max(1, replicas - 1)),
            "unclean.leader.election.enable": "false",
        }
        if self.visibility == "public" and (not self.writers or any(map(is_person, self.writers))):
            # The broker decompresses what they send and measures that: no batch inflates beyond max_bytes in an agent.
            wanted |= {"compression.type": "uncompressed"}
        if self.cleanup != "delete":  # small topics that are read from the start: keep them short
            wanted |= {"segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1"}
            wanted |= {
                "max.compaction.lag.ms": "3600000"
            }  # what a later record replaces, a destroyed key above all, goes
        return wanted


class _Catalogue(BaseModel):
    topics: tuple[Topic, ...]


@cache
def catalogue() -> dict[str, Topic]:
    """Every topic by name. Raises ConfigError."""
    path = data_path("topics", "catalogue.yaml")
    try:
        rows = _Catalogue.model_validate(yaml.safe_load(path.read_text())).topics
    except (ValidationError, yaml.YAMLError) as exc:
        raise ConfigError(f"topics/catalogue.yaml does not fit what its head says: {exc}") from exc
    return {row.name: row for row in rows}


def own_topic(name: str, tenant: str) -> str:
    """Name of a tenant's own topic: in tenant mode it stands in the place of the shared one."""
    return f"{name}.{tenant}"


def tenant_of_topic(name: str) -> str | None:
    """The tenant whose own topic this is; None: it is a shared one, or none of ours.

    Ids of tenants have no dot, and the one id that would meet a shared topic (veil.audit.checkpoints) is never given.
    """
    shared, _, tenant = name.rpartition(".")
    row = catalogue().get(shared)
    return tenant if row is not None and row.own and tenant and name not in catalogue() else None


def own_rows(tenant: str, *, partitions: int) -> dict[str, Topic]:
    """A tenant's own topics by name, `partitions` each, but for those whose order needs one.

    They are as the shared ones, with the tenant's principal (`clients.T`) in the place of everybody's.
    """

    def owned(roles: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{TENANT_ROLE}{tenant}" if role == "clients" else role for role in roles)

    rows = (row for row in catalogue().values() if row.own)
    found = [
        row.model_copy(
            update={
                "name": own_topic(row.name, tenant),
                "partitions": row.partition_count(partitions),
                "writers": owned(row.writers),
                "readers": owned(row.readers),
                "own": False,
            }
        )
        for row in rows
    ]
    return {row.name: row for row in found}
