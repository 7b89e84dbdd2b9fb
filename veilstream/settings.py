"""Every setting, typed: name, unit, default, reason. Read from the environment as VEIL_NAME (see docs/settings.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of one process. `veil up` fills in what its own servers need; everything has a default that works."""

    model_config = SettingsConfigDict(env_prefix="VEIL_", frozen=True, extra="ignore")

    bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka bootstrap servers, host:port, comma separated.")
    postgres: SecretStr = Field(
        default=SecretStr("postgresql://postgres@127.0.0.1:5432/veil"),
        description="Postgres connection URI of the audit store.",
    )
    redis: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), description="Redis URL of the stack; no agent uses it yet."
    )
    schema_registry: SecretStr | None = Field(
        default=None,
        description="Confluent schema registry, http(s)://[user:password@]host:port: the gate reads Confluent framing, verdicts "
        "in Avro are written with it, the client reads them. Default: none.",
    )
    data_dir: Path = Field(default=Path(".veil"), description="Folder of the embedded stack: data, logs, keys, ports.")
    keys_dir: Path | None = Field(
        default=None, description="Folder of the local-file key service; default: `keys` in data_dir."
    )
    token_mode: Literal["off"] = Field(
        default="off",
        description="Whether the gate checks `veil-token` headers: not yet, and each start of the gate says so.",
    )
    chain_partitions: int = Field(
        default=4,
        ge=1,
        description="Partitions of the chain's topics: 4 embedded, 200 in production. Chosen once: growing moves keys.",
    )
    verdict_format: Literal["avro", "json"] = Field(
        default="avro", description="How verdicts are written to veil.verdicts."
    )
    instance: str = Field(
        default="0", description="Name of this worker slot. Unique among the workers of one agent; kept over restarts."
    )
    health_host: str = Field(default="127.0.0.1", description="Address of the metrics and health endpoint.")
    health_port: int = Field(default=0, description="Port of /metrics, /healthz, /readyz; 0 takes a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="How log events are written to standard error."
    )
    pool_workers: int = Field(
        default=1, ge=1, description="Processes of the detection pool; each holds one loaded model."
    )
    nlp_config: Path | None = Field(
        default=None,
        description="Presidio analyzer YAML (nlp engine, recognizers, languages), as Presidio takes it; default: ours.",
    )
    batch_records: int = Field(
        default=256, ge=1, description="Records of one partition that a step gets at most in one batch."
    )
    batch_bytes: int = Field(default=4 << 20, ge=1, description="Bytes of record values after which a batch is closed.")
    batch_interval_s: float = Field(
        default=0.03,
        ge=0,
        description="Least time between two batches of one partition. A transaction costs the broker and the agent some "
        "milliseconds of CPU whatever is in it, so letting records gather for a moment saves more time than it takes.",
    )
    session_timeout_s: float = Field(
        default=6.0, description="Consumer group session timeout; 6 s is the broker's least."
    )
    transaction_timeout_s: float = Field(
        default=10.0,
        description="The broker aborts a dead worker's transaction after this; it looks every 10 s, so less gains little.",
    )
    policy_wait_s: float = Field(
        default=2.0,
        ge=0,
        description="How long a worker waits for a policy version, a key or state it has not seen yet, before it fails closed.",
    )

    @property
    def keys_folder(self) -> Path:
        """Folder of the local-file key service."""
        return self.keys_dir or self.data_dir / "keys"
