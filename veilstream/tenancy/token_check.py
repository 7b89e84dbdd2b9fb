"""What the gate asks of a record's token. Each way it can be wrong has a code of its own, with the fixed words of reasons.yaml.

1. Which token: exactly one. 2. How long: bounded before anything is parsed. 3. Who signed: a key of the set, with the one
algorithm of that key, whatever the token says. 4. For what: audience, times, this record, its tenant, the right to produce.
5. Not revoked. Nothing a token says is looked at before its signature holds, but `kid` and `alg`.

Times are the broker's time of the record: a verdict does not depend on when it was worked on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from veilstream.contracts.errors import RecordError
from veilstream.contracts.reasons import message
from veilstream.contracts.records import TokenUse
from veilstream.contracts.step import Headers
from veilstream.contracts.token import BEARER_HEADER, HEADER, MAX_BYTES, PRODUCE, use_id, value_digest
from veilstream.tenancy.token_keys import EDDSA, KeySet, VerifyingKey
from veilstream.tenancy.token_rules import BearerRules, TokenRules

NAME_MAX: Final = 256
"""Characters of `jti` and `sub`."""
SECONDS_MAX: Final = 253_402_300_799
"""The end of the year 9999: what is remembered of a time must fit a row."""
_BOUND: Final = frozenset({EDDSA})
_BEARER: Final = frozenset({EDDSA, "RS256", "ES256"})
_SCHEME: Final = b"bearer "
_JWS: Final = jwt.PyJWS(algorithms=sorted(_BEARER))

Revoked = Callable[[str, bytes], bool]
"""Whether a tenant's token of this `use_id` was revoked."""


@dataclass(frozen=True, slots=True)
class Presented:
    """The one token of a record, unread."""

    token: bytes
    bearer: BearerRules | None
    """None: it is a `veil-token`."""


def presented(headers: Headers, rules: TokenRules) -> Presented | None:
    """The token a record came with; None: it has none and needs none. Raises RecordError."""
    tokens = [value for name, value in headers if name.lower() == HEADER]
    bearers = [] if rules.bearer is None else [v for name, v in headers if name.lower() == BEARER_HEADER]
    if len(tokens) + len(bearers) > 1:
        raise _refused("token_duplicate")
    if not tokens and not bearers:
        if rules.required:
            raise _refused("token_missing")
        return None
    value: bytes | None = (tokens + bearers)[0]  # Kafka has headers without a value
    if value is None or not 0 < len(value) <= MAX_BYTES:
        raise _refused("token_malformed")
    if tokens:
        return Presented(value, None)
    if value[: len(_SCHEME)].lower() != _SCHEME:
        raise _refused("token_malformed")
    return Presented(value[len(_SCHEME) :].strip(b" "), rules.bearer)


def check_token(
    given: Presented, keys: KeySet, rules: TokenRules, *, tenant: str, value: bytes, received_ms: int, revoked: Revoked
) -> TokenUse:
    """Check a token against the record it came with; what is to be remembered of it. Raises RecordError."""
    key, claims = _verified(given, keys)
    read = _Claims.read(claims, given.bearer)
    if rules.audience not in read.audiences:
        raise _refused("token_wrong_audience")
    if given.bearer is not None and given.bearer.issuer not in (None, claims.get("iss")):
        raise _refused("token_wrong_issuer")
    if received_ms >= (read.expires_s + rules.leeway_s) * 1000:  # RFC 7519: not on or after
        raise _refused("token_expired")
    if received_ms < (max(read.not_before_s, read.issued_at_s) - rules.leeway_s) * 1000:
        raise _refused("token_not_yet_valid")
    if read.expires_s - read.issued_at_s > rules.lifetime_s:
        raise _refused("token_too_long_lived")
    if read.digest is not None and read.digest != value_digest(value):
        raise _refused("token_other_record")
    if read.tenant != tenant or (key.tenants is not None and tenant not in key.tenants):
        raise _refused("token_wrong_tenant")
    if PRODUCE not in read.permissions:
        raise _refused("token_no_permission")
    use = TokenUse(use_id(tenant, read.id), math.ceil((read.expires_s + rules.leeway_s) * 1000))
    if revoked(tenant, use.id):
        raise _refused("token_revoked")
    return use


def _verified(given: Presented, keys: KeySet) -> tuple[VerifyingKey, Mapping[str, Any]]:
    """The key and the claims, once the signature holds."""
    allowed = _BOUND if given.bearer is None else _BEARER
    try:  # of a token without body and signature: those are read once, below
        header = _JWS.get_unverified_header(given.token.partition(b".")[0] + b"..")
    except Exception:  # noqa: BLE001  every kind of damage is the same to the sender, and its text may hold the token
        raise _refused("token_malformed") from None
    if not isinstance(algorithm := header.get("alg"), str) or algorithm not in allowed:
        raise _refused("token_algorithm")
    if not isinstance(kid := header.get("kid"), str):
        raise _refused("token_malformed")
    if (key := keys.keys.get(kid)) is None:
        raise _refused("token_unknown_key")
    if algorithm != key.algorithm:
        raise _refused("token_algorithm")
    try:
        payload = _JWS.decode_complete(given.token, key.jwk, algorithms=[key.algorithm])["payload"]
        claims = json.loads(payload)
    except jwt.InvalidSignatureError:
        raise _refused("token_bad_signature") from None
    except Exception:  # noqa: BLE001  see above
        raise _refused("token_malformed") from None
    if not isinstance(claims, dict):
        raise _refused("token_malformed")
    return key, claims


@dataclass(frozen=True, slots=True)
class _Claims:
    tenant: str
    id: str
    permissions: Sequence[str]
    audiences: Sequence[str]
    issued_at_s: float
    not_before_s: float
    expires_s: float
    digest: str | None

    @classmethod
    def read(cls, claims: Mapping[str, Any], bearer: BearerRules | None) -> _Claims:
        """The claims, each of its type. Raises RecordError.

        A bearer token may leave `nbf` out, name its rights in `scope` (RFC 9068) and has no `digest`; where it has one it is
        bound to that record all the same, so that a captured `veil-token` is of no use in the other header.
        """
        try:
            bound = bearer is None
            permissions = claims["permissions"] if bound or "permissions" in claims else _words(claims["scope"])
            audiences = claims["aud"]
            _name(claims["sub"])
            issued_at_s = _seconds(claims["iat"])
            return cls(
                _name(claims["tenant" if bearer is None else bearer.tenant_claim]),
                _name(claims["jti"]),
                _strings(permissions),
                _strings([audiences] if isinstance(audiences, str) else audiences),
                issued_at_s,
                _seconds(claims["nbf"]) if bound or "nbf" in claims else issued_at_s,
                _seconds(claims["exp"]),
                _name(claims["digest"]) if bound or "digest" in claims else None,
            )
        except (KeyError, TypeError, ValueError):
            raise _refused("token_malformed") from None


def _name(given: Any) -> str:
    """A short text that is valid Unicode."""
    if not isinstance(given, str) or not 0 < len(given) <= NAME_MAX:
        raise ValueError
    given.encode()  # UnicodeEncodeError is a ValueError
    return given


def _strings(given: Any) -> Sequence[str]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ValueError
    return given


def _words(given: Any) -> Sequence[str]:
    if not isinstance(given, str):
        raise TypeError
    return given.split(" ")


def _seconds(given: Any) -> float:
    """A time since the epoch. JSON's `true` is no number here, `NaN` and `1e400` are no times."""
    if type(given) not in (int, float) or not 0 <= given <= SECONDS_MAX:
        raise ValueError
    return float(given)


def _refused(code: str) -> RecordError:
    """Fixed words: a refusal tells its code and nothing else."""
    return RecordError(message(code), code=code)
