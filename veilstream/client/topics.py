"""The public topics a client uses: those that all share, or one tenant's own (tenant mode)."""

from __future__ import annotations

from dataclasses import dataclass

from veilstream.contracts.catalogue import AUDIT, PUBLIC_KEYS, REQUESTS, VERDICTS, own_topic
from veilstream.contracts.errors import ClientError, ConfigError
from veilstream.tenancy.ids import TENANT_ID_FORM, is_tenant_id


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of topics; `tenant` is whose they are, None: everybody's."""

    tenant: str | None = None
    requests: str = REQUESTS
    verdicts: str = VERDICTS
    audit: str = AUDIT
    public_keys: str = PUBLIC_KEYS

    def require(self, tenant: str) -> None:
        """Raise ClientError where these are another tenant's: the gate would refuse the record."""
        if self.tenant not in (None, tenant):
            raise ClientError(
                f"this client uses the topics of {self.tenant!r} (VEIL_TENANT_TOPICS), and the record is another tenant's: "
                "nothing was sent; send it with a client of that tenant",
                code="foreign_tenant",
            )


def topics_of(tenant: str | None) -> Topics:
    """The tenant's own topics; without one, those that all share. Raises ConfigError."""
    if tenant is None:
        return Topics()
    if not is_tenant_id(tenant):
        raise ConfigError(f"VEIL_TENANT_TOPICS must be a tenant id, {TENANT_ID_FORM}")
    return Topics(tenant, *(own_topic(name, tenant) for name in (REQUESTS, VERDICTS, AUDIT, PUBLIC_KEYS)))
