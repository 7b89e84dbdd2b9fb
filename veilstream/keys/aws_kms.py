"""AWS Key Management Service: Encrypt and Decrypt under a symmetric KMS key, with an encryption context.

Encrypt, not GenerateDataKey: root keys are drawn here for every service alike, and one answer (the ciphertext) is all that
comes back. The context {tenant, key_id, purpose} is bound in as associated data, shows in CloudTrail, and can be asked for in a
key policy (`kms:EncryptionContext:tenant`). Decrypt names the KMS key, and only keys of the setting are asked: an entry that
names another one cannot make us use a key of somebody else's.

botocore signs, finds credentials the ordinary way (environment, profile, container, instance) and renews them. It is 30 MB and
takes half a second to load, so it is optional (`pip install veilstream[aws]`) and loaded only where this service is used.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from veilstream.contracts.errors import ConfigError, RecordError, TenantError, VeilError, WorldError
from veilstream.keys.service import REFUSED, KeyContext

NAME: Final = "aws-kms"
PURPOSE: Final = "veil-root-key-v1"
_OPERATIONS: Final = "(operations)"
"""As `tenant` of the context: an empty value is not one, and no tenant id has parentheses."""
CONNECT_S: Final = 2.0
ANSWER_S: Final = 5.0
"""KMS answers in some 10 ms; what takes longer than this will not come, and its thread is wanted."""
_TOGETHER: Final = 32
"""Connections kept: more than the threads that ask (veilstream/keys/opening.py)."""

_OF_ONE_KEY: Final[Mapping[str, str]] = MappingProxyType({
    "ThrottlingException": "throttles requests for",
    "LimitExceededException": "throttles requests for",
    "AccessDeniedException": "denies this process",
    "DisabledException": "has disabled",
    "KMSInvalidStateException": "is deleting, or cannot use in its present state,",
    "KeyUnavailableException": "cannot use now",
    "NotFoundException": "does not have (any more)",
})  # fmt: skip
"""Answers about this one key, by their code; docs: KMS API reference, Decrypt and Encrypt, Errors."""
_NOT_ITS: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})


@dataclass(frozen=True, slots=True)
class _Arn:
    """arn:PARTITION:kms:REGION:ACCOUNT:key/ID (or alias/NAME)."""

    text: str

    @property
    def region(self) -> str:
        return self.text.split(":")[3]


class AwsKms:
    """One key service for each tenant region, or one for all. Calls block: they belong into threads, and are safe there."""

    name = NAME

    def __init__(self, keys: Mapping[str, str], *, endpoint: str | None = None, region: str = "") -> None:
        """ARNs by the region of tenants, "" for all that are not named. Raises ConfigError, also where botocore is missing."""
        _loaded()
        self._keys = {of: _arn(text) for of, text in keys.items()}
        if not self._keys:
            raise ConfigError("VEIL_KEY_SERVICE is aws-kms and VEIL_AWS_KMS_KEY is not set: give the key's ARN")
        self._endpoint = endpoint
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()
        chosen = self._keys.get(region) or self._keys.get("")
        self.key = (chosen or next(iter(self._keys.values()))).text

    def for_region(self, region: str) -> AwsKms:
        """The same service, new keys under the region's own KMS key."""
        if region not in self._keys and "" not in self._keys:
            raise RecordError(
                "no KMS key is set for the tenant's region: name one in VEIL_AWS_KMS_KEY (REGION=ARN, …)",
                code="no_key_for_region",
            )
        one = AwsKms({of: arn.text for of, arn in self._keys.items()}, endpoint=self._endpoint, region=region)
        one._clients, one._making = self._clients, self._making
        return one

    def wrap(self, data_key: bytes, context: KeyContext) -> bytes:
        """KMS Encrypt."""
        arn = _Arn(self.key)
        answer = self._ask(arn, "encrypt", {"Plaintext": data_key}, context)
        return bytes(answer["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, context: KeyContext) -> bytes:
        """KMS Decrypt."""
        arn = _Arn(context.service_key or self.key)
        if arn not in self._keys.values():
            raise WorldError(
                "a key on veil.keys is wrapped under a KMS key that VEIL_AWS_KMS_KEY does not name: add its ARN there",
                code=REFUSED,
            )
        answer = self._ask(arn, "decrypt", {"CiphertextBlob": wrapped}, context)
        return bytes(answer["Plaintext"])

    def _ask(self, arn: _Arn, call: str, arguments: Mapping[str, Any], context: KeyContext) -> Mapping[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        bound = {"tenant": context.tenant or _OPERATIONS, "key_id": context.key_id, "purpose": PURPOSE}
        try:
            client = self._client(arn.region)
            answer: Mapping[str, Any] = getattr(client, call)(
                KeyId=arn.text, EncryptionContext=bound, EncryptionAlgorithm="SYMMETRIC_DEFAULT", **arguments
            )
        except ClientError as exc:
            raise _told(exc.response, arn) from None
        except BotoCoreError as exc:  # its text may hold addresses and names of files with credentials
            raise WorldError(
                f"AWS KMS in {arn.region} cannot be asked ({type(exc).__name__}): look at network, endpoint and credentials",
                code="key_service_away",
            ) from None
        return answer

    def _client(self, region: str) -> Any:
        with self._making:  # clients may be shared by threads, making them may not
            if region not in self._clients:
                self._clients[region] = _made_client(region, self._endpoint)
            return self._clients[region]


def _told(response: Mapping[str, Any], arn: _Arn) -> VeilError:
    """An error answer as whose fault it is; the answer's text is not quoted, as it names principals."""
    code = str(response.get("Error", {}).get("Code", ""))
    if code in _NOT_ITS:
        return WorldError(
            "a wrapped key on veil.keys does not open under its KMS key and context: it was changed or moved, restore veil.keys",
            code=REFUSED,
        )
    if code in _OF_ONE_KEY:
        return TenantError(f"AWS KMS {_OF_ONE_KEY[code]} the tenant's key ({code})", code="key_unavailable")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    said = code if code.isalnum() else "no code"
    return WorldError(f"AWS KMS in {arn.region} answers HTTP {status} ({said})", code="key_service_away")


def _loaded() -> None:
    try:
        import botocore.session  # noqa: F401
    except ImportError:
        raise ConfigError(
            "VEIL_KEY_SERVICE is aws-kms and botocore is missing: pip install 'veilstream[aws]'"
        ) from None


def _made_client(region: str, endpoint: str | None) -> Any:
    from botocore.config import Config
    from botocore.session import Session

    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=ANSWER_S,
        retries={"mode": "standard", "total_max_attempts": 1},  # who waits tries again, and knows for how long
        max_pool_connections=_TOGETHER,
    )
    return Session().create_client("kms", region_name=region, endpoint_url=endpoint, config=config)


def _arn(text: str) -> _Arn:
    parts = text.split(":")
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "kms" or not parts[3] or "/" not in parts[5]:
        raise ConfigError(
            "VEIL_AWS_KMS_KEY has something that is no ARN of a KMS key: arn:aws:kms:REGION:ACCOUNT:key/ID"
        )
    return _Arn(text)
