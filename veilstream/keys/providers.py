"""The key service that the settings name, and the ring over it."""

from __future__ import annotations

from veilstream.contracts.errors import ConfigError
from veilstream.keys.aws_kms import AwsKms
from veilstream.keys.keyring import KeyRing, Limits
from veilstream.keys.service import KeyService, LocalFile
from veilstream.keys.sessions import CHAIN_MS
from veilstream.settings import Settings


def key_service(settings: Settings) -> KeyService:
    """Raises ConfigError (no master key, no ARN, no address)."""
    if settings.key_service == "aws-kms":
        keys = _by_region(settings.aws_kms_key or "", "VEIL_AWS_KMS_KEY")
        return AwsKms(keys, endpoint=settings.aws_kms_endpoint)
    if settings.key_service == "vault":
        from veilstream.keys.vault import Vault  # and its HTTP library, which others need not load
        from veilstream.keys.vault_server import vault_server

        return Vault(_by_region(settings.vault_key or "", "VEIL_VAULT_KEY"), vault_server(settings))
    return LocalFile(settings.keys_folder)


def key_ring(settings: Settings, service: KeyService, *, keep_ms: int = CHAIN_MS) -> KeyRing:
    """A ring with the settings' limits; only the local file is quick enough to be asked in the middle of a step."""
    limits = Limits(settings.key_cache_s, settings.key_cache_uses)
    return KeyRing(service, at_once=isinstance(service, LocalFile), limits=limits, keep_ms=keep_ms)


def _by_region(text: str, variable: str) -> dict[str, str]:
    """`KEY`, or `eu=KEY, us=KEY`, or both: the one without a name is of every region that is not named."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        region, _, key = part.rpartition("=")
        if region in found:
            raise ConfigError(f"{variable} names two keys for {region or 'all other regions'}: leave one")
        found[region] = key
    return found
