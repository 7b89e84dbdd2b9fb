"""The key service that the settings name, and the ring over it."""

from __future__ import annotations

from veilstream.contracts.errors import ConfigError
from veilstream.keys.aws_kms import AwsKms
from veilstream.keys.keyring import KeyRing, Limits
from veilstream.keys.service import KeyService, LocalFile
from veilstream.settings import Settings


def key_service(settings: Settings) -> KeyService:
    """Raises ConfigError (no master key, no ARN)."""
    if settings.key_service == "aws-kms":
        return AwsKms(_by_region(settings.aws_kms_key or ""), endpoint=settings.aws_kms_endpoint)
    return LocalFile(settings.keys_folder)


def key_ring(settings: Settings, service: KeyService) -> KeyRing:
    """A ring with the settings' limits; only the local file is quick enough to be asked in the middle of a step."""
    limits = Limits(settings.key_cache_s, settings.key_cache_uses)
    return KeyRing(service, at_once=isinstance(service, LocalFile), limits=limits)


def _by_region(text: str) -> dict[str, str]:
    """`ARN`, or `eu=ARN, us=ARN`, or both: the one without a name is of every region that is not named."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        region, _, arn = part.rpartition("=")
        if region in found:
            raise ConfigError(f"VEIL_AWS_KMS_KEY names two keys for {region or 'all other regions'}: leave one")
        found[region] = arn
    return found
