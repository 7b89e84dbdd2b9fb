"""Every setting, typed: name, unit, default, reason. Read from the environment as VEIL_NAME (see docs/settings.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from veilstream.connection.rules import check_security, variable
from veilstream.connection.tokens import check_token_settings
from veilstream.contracts.errors import ConfigError
from veilstream.llm_settings import LlmSettings

Unset = BeforeValidator(lambda value: None if value == "" else value)
"""An empty variable counts as not set: composed environments pass empty ones on."""
AsZero = BeforeValidator(lambda value: 0 if value == "" else value)
"""The same, where 0 means that nothing is set."""


class Settings(LlmSettings, BaseSettings):
    """Settings of one process. `veil up` fills in what its own servers need; everything has a default that works."""

    model_config = SettingsConfigDict(env_prefix="VEIL_", frozen=True, extra="ignore")

    bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka bootstrap servers, host:port, comma separated.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="How Kafka is spoken to: SSL encrypts, SASL names a user with a password, SASL_SSL does both. See "
        "docs/security.md; the settings below are checked as a whole at start.",
    )
    ssl_cafile: Annotated[Path | None, Unset] = Field(
        default=None,
        description="PEM file of the authorities whose broker certificates are trusted; default: the system's.",
    )
    ssl_certfile: Annotated[Path | None, Unset] = Field(
        default=None,
        description="PEM file of this process's own certificate (and its chain), for brokers that ask for one.",
    )
    ssl_keyfile: Annotated[Path | None, Unset] = Field(
        default=None, description="PEM file of that certificate's key; default: it is in the certificate's file."
    )
    ssl_key_password: Annotated[SecretStr | None, Unset] = Field(
        default=None, description="Password of that key, where it is encrypted."
    )
    ssl_check_hostname: bool = Field(
        default=True,
        description="Whether a broker's certificate must be for the name it is reached by. `false` leaves room for whoever "
        "holds any certificate of the same authority.",
    )
    sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, Unset] = Field(
        default=None,
        description="How the password is proved; PLAIN sends it, so only over SASL_SSL. Each SASL protocol needs it.",
    )
    sasl_username: Annotated[str | None, Unset] = Field(
        default=None, description="User of this process: `veil-gate`, `veil-admit`, … (one an agent), `veil-clients`."
    )
    sasl_password: Annotated[SecretStr | None, Unset] = Field(default=None, description="The user's password.")
    postgres: SecretStr = Field(
        default=SecretStr("postgresql://postgres@127.0.0.1:5432/veil"),
        description="Postgres connection URI of the audit store.",
    )
    redis: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis URL: redis://[user:password@]host:port/db, rediss:// for TLS (?ssl_ca_certs=FILE names the "
        "authorities). The gate counts users and addresses there (docs/quotas.md), detection keeps answers (docs/cache.md) "
        "and counts what tenants ask of providers (docs/threats-llm.md).",
    )
    actor_limits: bool = Field(
        default=True, description="Whether the gate holds single users and source addresses to limits (docs/quotas.md)."
    )
    actor_limits_without_redis: Literal["admit", "refuse"] = Field(
        default="admit",
        description="What becomes, while Redis is away, of records whose user or address has a limit: they pass uncounted, or "
        "are refused as `limit_unknown`.",
    )
    actor_limits_wait_s: float = Field(
        default=0.05,
        gt=0,
        le=5,
        description="How long a batch of the gate waits for Redis, once in an outage: then Redis is away until a look every 2 s "
        "finds that it answers in that time again.",
    )
    cache: Literal["redis", "memory", "off"] = Field(
        default="redis",
        description="Where detection keeps answers, to give them again to the same text of the same tenant: in each worker's "
        "memory and in Redis, in memory alone, or nowhere (docs/cache.md).",
    )
    cache_memory_bytes: int = Field(
        default=64 << 20,
        ge=0,
        description="Of kept answers in the memory of one detection worker; 64 MiB are some 60,000. 0: none.",
    )
    cache_redis_bytes: int = Field(
        default=64 << 20,
        ge=0,
        description="Of kept answers that one detection worker has in Redis at most; what is more stays in its memory alone.",
    )
    cache_wait_s: float = Field(
        default=0.05,
        gt=0,
        le=5,
        description="How long a batch of detection waits for Redis, once in an outage: then Redis is away until a look every 2 s "
        "finds that it answers in that time again.",
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
    key_service: Literal["local-file", "aws-kms", "vault"] = Field(
        default="local-file",
        description="What wraps root keys: a master key in a file, AWS KMS, or the transit engine of HashiCorp Vault or OpenBao "
        "(docs/keys.md). The same for every agent.",
    )
    aws_kms_key: Annotated[str | None, Unset] = Field(
        default=None,
        description="ARN of the KMS key; or `eu=ARN, us=ARN`, by region of the tenant. All that wrapped a key on veil.keys.",
    )
    aws_kms_endpoint: Annotated[str | None, Unset] = Field(
        default=None, description="Address of KMS where it is not AWS's own for the key's region: a VPC endpoint."
    )
    vault_addr: Annotated[str | None, Unset] = Field(
        default=None, description="Address of Vault: https://HOST:PORT; http only on this machine (a Vault agent)."
    )
    vault_hosts: str = Field(
        default="",
        description="Hosts that may be asked as Vault, as they stand in its address: host or host:port, comma separated.",
    )
    vault_key: Annotated[str | None, Unset] = Field(
        default=None,
        description="Transit key, MOUNT/NAME; or `eu=transit/veil-eu, us=transit/veil-us`, by region of the tenant. All that "
        "wrapped a key on veil.keys.",
    )
    vault_namespace: Annotated[str | None, Unset] = Field(
        default=None, description="Namespace in Vault that the mounts are in; default: the root namespace."
    )
    vault_token: Annotated[SecretStr | None, Unset] = Field(
        default=None, description="Token for Vault. One that is renewed belongs in a file."
    )
    vault_token_file: Annotated[Path | None, Unset] = Field(
        default=None, description="File with the token, read for each request: a Vault agent writes it and renews it."
    )
    vault_cafile: Annotated[Path | None, Unset] = Field(
        default=None, description="PEM file of the authorities Vault's certificate is from; default: the system's."
    )
    key_cache_s: float = Field(
        default=3600.0,
        ge=1,
        description="How long an opened key stays in memory: so long does a key that is disabled at the service still work, and "
        "so long does work on known tenants go on while the service is away.",
    )
    key_cache_uses: int = Field(
        default=1_000_000,
        ge=1_000,
        description="How often an opened key is looked up (one to three times a record and agent) before it is opened anew.",
    )
    erased_after_s: float = Field(
        default=3_900.0,
        ge=1,
        description="How long after a tenant's delete policy has the segment of veil.keys closed that holds its wrapped keys, so "
        "that the broker compacts them away: the topic's max.compaction.lag.ms (1 h) and 5 minutes for clocks.",
    )
    token_mode: Literal["required", "optional", "off"] = Field(
        default="off",
        description="Whether the gate checks `veil-token` headers (docs/security.md): of every record, of those that have one, "
        "or not at all, which each start of the gate says.",
    )
    token_keys: Annotated[str | None, Unset] = Field(
        default=None,
        description="JWK set that tokens are verified with: a file, read again when it changes, or an http(s) URL.",
    )
    token_keys_hosts: str = Field(
        default="",
        description="Hosts that a key set may be fetched from, as they stand in its URL: host or host:port, comma separated.",
    )
    token_keys_refresh_s: float = Field(default=300.0, ge=1, description="How often a key set is fetched again.")
    token_keys_interval_s: float = Field(
        default=10.0,
        ge=0.1,
        description="A key set is never fetched more often, neither after a failure nor for a token with an unknown key.",
    )
    token_keys_max_age_s: float = Field(
        default=3600.0,
        ge=1,
        description="How long a key set is in force that cannot be read again; then partitions are held until it can.",
    )
    token_audience: str = Field(default="veilstream", min_length=1, description="What `aud` of a token must name.")
    token_leeway_s: int = Field(
        default=30, ge=0, le=300, description="How far a signer's clock may be from the broker's, in both directions."
    )
    token_lifetime_s: int = Field(
        default=900,
        ge=1,
        le=86_400,
        description="Longest time from `iat` to `exp` of a token. Admit remembers a used token until it has expired.",
    )
    bearer: bool = Field(
        default=False,
        description="Whether `authorization: Bearer` is taken too: a JWT that is not bound to its record. See docs/security.md.",
    )
    bearer_tenant_claim: str = Field(
        default="tenant", min_length=1, description="The claim of such a JWT that names the tenant."
    )
    bearer_issuer: Annotated[str | None, Unset] = Field(
        default=None, description="What `iss` of such a JWT must be; default: it is not looked at."
    )
    token_signing_key: Annotated[Path | None, Unset] = Field(
        default=None,
        description="Of a client: PEM file of the Ed25519 key it signs a token for each record with (`veil token keygen`).",
    )
    token_key_id: Annotated[str | None, Unset] = Field(
        default=None, description="Of a client: `kid` of that key in the gate's key set."
    )
    token_subject: Annotated[str | None, Unset] = Field(
        default=None, description="Of a client: who it is, `sub` of its tokens."
    )
    region: Annotated[Literal["us", "eu", "asia"] | None, Unset] = Field(
        default=None,
        description="Region of this stack: the gate refuses records of tenants of another one. Default: not checked.",
    )
    tenant_topics: Annotated[str | None, Unset] = Field(
        default=None,
        description="Of a client: the tenant whose own topics it uses (tenant mode), `veil.requests.T` and the others. Default: "
        "the shared ones.",
    )
    token_skew_s: int = Field(
        default=3600,
        ge=60,
        description="How far one input partition may lie behind another: admit remembers a used token for so long beyond its "
        "expiry (some 300 bytes each), and refuses one that reaches it later as `token_outlived`; and it counts a record in "
        "the second, minute and day of its own broker time, or at this border behind its tenant's latest.",
    )
    share_per_s: int = Field(
        default=10_000,
        ge=0,
        description="Of each tenant with limits, each second: characters, and 200 for each record, that are worked on with "
        "everybody's; what is beyond waits in the overflow lane (docs/fairness.md). 10,000 is about half of what one core "
        "looks through in a second. 0: no share, nothing waits.",
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
    pool_workers: Annotated[int, AsZero] = Field(
        default=0,
        ge=0,
        description="Processes of the detection pool; they share one loaded model. 0 or empty: all cores but one, at least two "
        "where there are two, at most 16; cores are those it may run on, within the cgroup's quota (docs/detection.md).",
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

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Each setting by itself, then those of the connection to Kafka and those of tokens as a whole. Raises ConfigError.

        Pydantic's own error would quote the values, and one of them may be a password.
        """
        try:
            settings = handler(values)
        except ValidationError as exc:
            wrong = [f"{variable(str(error['loc'][0]))}: {error['msg']}" for error in exc.errors(include_input=False)]
            raise ConfigError(f"a setting is wrong: {'; '.join(wrong)} (docs/settings.md)") from None
        check_security(settings)
        check_token_settings(settings)
        return settings

    @property
    def keys_folder(self) -> Path:
        """Folder of the local-file key service."""
        return self.keys_dir or self.data_dir / "keys"
