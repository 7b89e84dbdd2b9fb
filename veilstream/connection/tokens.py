"""Which settings of tokens go together: checked as a whole, before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from veilstream.connection.addresses import address_of, check_allowed
from veilstream.contracts.errors import ConfigError

if TYPE_CHECKING:
    from veilstream.settings import Settings

PAGE: Final = "docs/security.md, Tokens"
_SIGNING: Final = ("token_signing_key", "token_key_id", "token_subject")


def check_token_settings(settings: Settings) -> None:
    """Raises ConfigError: settings of tokens that contradict one another.

    1. Nothing may be set that the mode leaves unused: whoever names a key set believes tokens are checked.
    2. A mode that checks needs a key set; of a server, its host must be on the allow list. 3. Times must leave room for one
    another. 4. A client that signs needs key, key id and subject.
    """
    mode = settings.token_mode
    if mode == "off":  # 1
        if settings.token_keys is not None or settings.bearer:
            named = "VEIL_BEARER" if settings.token_keys is None else "VEIL_TOKEN_KEYS"
            raise ConfigError(
                f"{named} is set, but VEIL_TOKEN_MODE is off, so no token is checked: set VEIL_TOKEN_MODE to required "
                f"or optional, or unset {named} ({PAGE})"
            )
    elif settings.token_keys is None:  # 2
        raise ConfigError(
            f"VEIL_TOKEN_MODE is {mode}, which needs VEIL_TOKEN_KEYS: name a file with a JWK set, or the "
            f"URL of one ({PAGE})"
        )
    else:
        _check_place(settings.token_keys, settings.token_keys_hosts)
    if settings.bearer_issuer is not None and not settings.bearer:
        raise ConfigError("VEIL_BEARER_ISSUER is set without VEIL_BEARER: set VEIL_BEARER to true, or unset it")
    if not settings.token_keys_interval_s <= settings.token_keys_refresh_s <= settings.token_keys_max_age_s:  # 3
        raise ConfigError(
            "VEIL_TOKEN_KEYS_INTERVAL_S must not be more than VEIL_TOKEN_KEYS_REFRESH_S, nor that more than "
            "VEIL_TOKEN_KEYS_MAX_AGE_S: else a set would be too old before it is read again"
        )
    missing = [f"VEIL_{name.upper()}" for name in _SIGNING if getattr(settings, name) is None]
    if 0 < len(missing) < len(_SIGNING):  # 4
        raise ConfigError(
            f"a client that signs tokens needs {', '.join(missing)} too: set it, or unset all three ({PAGE})"
        )


def is_url(place: str) -> bool:
    """Whether a key set is had from a server."""
    return "://" in place


def is_exposed(place: str) -> bool:
    """Whether a key set comes over the network unencrypted: whoever is on the way can put in a key of their own."""
    address = address_of(place) if is_url(place) else None
    return address is not None and address.is_exposed


def _check_place(place: str, allowed: str) -> None:
    if not is_url(place):
        return
    address = address_of(place)
    if address is None:
        raise ConfigError(
            "VEIL_TOKEN_KEYS is neither a file nor an address like https://issuer.example/jwks.json without user and password"
        )
    check_allowed(address, "VEIL_TOKEN_KEYS", allowed, "VEIL_TOKEN_KEYS_HOSTS", "keys may come from it")
