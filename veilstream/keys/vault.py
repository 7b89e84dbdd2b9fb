"""The transit engine of HashiCorp Vault, and of OpenBao, its open fork: encrypt and decrypt under a derived key.

Encrypt, not datakey: root keys are drawn here for every service alike, and one answer (the ciphertext) is all that comes back.
Two things are bound in. `context`, one for each tenant: with `derived=true` the engine makes each tenant a key of its own from
it, and a policy can deny one tenant by it (`denied_parameters`). `associated_data`, one for each root key: what is wrapped opens
as this key of this tenant alone, even under a transit key that somebody made without `derived`, which ignores contexts.

A rotation of the transit key needs nothing here: a ciphertext names its version (`vault:v2:…`), former ones open as before.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from veilstream.contracts.errors import ConfigError, RecordError, TenantError, VeilError, WorldError
from veilstream.keys.service import KEY_BYTES, REFUSED, KeyContext
from veilstream.keys.vault_server import Answer, VaultServer

NAME: Final = "vault"
PURPOSE: Final = "veil-root-key-v1"
_OPERATIONS: Final = "(operations)"
"""As tenant of the context; no tenant id has parentheses."""
_PATH: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/")
"""Of mounts and key names; a dot or a percent sign could lead to another path."""

_OF_ONE_KEY: Final[Mapping[str, str]] = MappingProxyType({
    "encryption key not found": "Vault does not have the tenant's transit key (any more)",
    "disallowed by policy": "Vault no longer decrypts this version of the tenant's transit key (min_decryption_version)",
})  # fmt: skip
_NOT_ITS: Final = ("message authentication failed", "invalid ciphertext")
"""Parts of what Vault 1.x and OpenBao 2.x say with status 400; sdk/helper/keysutil/policy.go, logical/transit/path_decrypt.go."""
_ADVICE: Final[Mapping[int, str]] = MappingProxyType({
    307: "it is a standby that does not forward; name the active node in VEIL_VAULT_ADDR",
    400: "the transit key must be of a type that takes associated data: aes256-gcm96, derived",
    403: "it does not know the token, or denies everything to it; look at the token and its policy",
    404: "VEIL_VAULT_KEY names no transit engine there, or VEIL_VAULT_NAMESPACE no namespace",
    429: "it limits requests; look at its rate limit quotas",
    503: "it is sealed, or not up yet",
})  # fmt: skip


class Vault:
    """One transit key for each tenant region, or one for all. Calls block: they belong into threads, and are safe there."""

    name = NAME

    def __init__(self, keys: Mapping[str, str], server: VaultServer, *, region: str = "") -> None:
        """Transit keys (MOUNT/NAME) by the region of tenants, "" for all that are not named. Raises ConfigError."""
        if not keys:
            raise ConfigError(
                "VEIL_KEY_SERVICE is vault and VEIL_VAULT_KEY is not set: give the transit key, MOUNT/NAME"
            )
        for key in keys.values():
            mount, _, name = key.rpartition("/")
            if not mount or not name or "//" in key or key.startswith("/") or not _PATH.issuperset(key):
                raise ConfigError(
                    "VEIL_VAULT_KEY has something that is no transit key: MOUNT/NAME, such as transit/veil"
                )
        self._keys = dict(keys)
        self._server = server
        self.key = keys.get(region) or keys.get("") or next(iter(keys.values()))

    def for_region(self, region: str) -> Vault:
        """The same service, new keys under the region's own transit key."""
        if region not in self._keys and "" not in self._keys:
            raise RecordError(
                "no transit key is set for the tenant's region: name one in VEIL_VAULT_KEY (REGION=MOUNT/NAME, …)",
                code="no_key_for_region",
            )
        return Vault(self._keys, self._server, region=region)

    def wrap(self, data_key: bytes, context: KeyContext) -> bytes:
        """Transit encrypt."""
        return self._ask("encrypt", self.key, {"plaintext": _base64(data_key)}, context, "ciphertext").encode()

    def unwrap(self, wrapped: bytes, context: KeyContext) -> bytes:
        """Transit decrypt."""
        key = context.service_key or self.key
        if key not in self._keys.values():
            raise WorldError(
                "a key on veil.keys is wrapped under a transit key that VEIL_VAULT_KEY does not name: add it there",
                code=REFUSED,
            )
        if not wrapped.isascii():
            raise _not_its()
        root = self._ask("decrypt", key, {"ciphertext": wrapped.decode("ascii")}, context, "plaintext")
        try:
            found = base64.b64decode(root, validate=True)
        except (binascii.Error, ValueError):
            found = b""
        if len(found) != KEY_BYTES:
            raise _not_vault()
        return found

    def _ask(self, call: str, key: str, given: Mapping[str, str], context: KeyContext, wanted: str) -> str:
        """The wanted field of the answer. Raises WorldError, TenantError."""
        mount, _, name = key.rpartition("/")
        bound = {
            "context": _base64(f"{PURPOSE}:{context.tenant or _OPERATIONS}".encode()),
            "associated_data": _base64(context.digest()),
        }
        answer = self._server.ask("POST", f"{mount}/{call}/{name}", {**given, **bound})
        if answer.status != 200:
            raise self._told(answer)
        data = answer.body.get("data")
        found = data.get(wanted) if isinstance(data, dict) else None
        if not isinstance(found, str) or not found.isascii():
            raise _not_vault()
        return found

    def _told(self, answer: Answer) -> VeilError:
        """An error answer as whose fault it is; its text is not quoted, as it names paths.

        403 is said of a token that is not known and of a path or tenant that is denied to it: whether the token itself is good
        tells them apart. Vault's `default` policy lets each token ask that.
        """
        if answer.status == 403 and self._server.ask("GET", "auth/token/lookup-self").status == 200:
            return TenantError("Vault denies this process the tenant's key", code="key_unavailable")
        if answer.status == 400:
            for part, said in _OF_ONE_KEY.items():
                if part in answer.errors:
                    return TenantError(said, code="key_unavailable")
            if any(part in answer.errors for part in _NOT_ITS):
                return _not_its()
        advice = _ADVICE.get(answer.status, "look at its log")
        return WorldError(f"Vault answers HTTP {answer.status}: {advice}", code="key_service_away")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _not_its() -> WorldError:
    return WorldError(
        "a wrapped key on veil.keys does not open under its transit key and context: it was changed or moved, restore veil.keys",
        code=REFUSED,
    )


def _not_vault() -> WorldError:
    return WorldError(
        "what stands at VEIL_VAULT_ADDR does not answer as Vault's transit engine does: correct the address",
        code="key_service_away",
    )
