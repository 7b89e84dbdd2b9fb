"""What checking a token costs the gate: µs of CPU per record, one thread.

    python -m bench.token

Last line: `token: token_us=… rs256_us=… es256_us=… refused_us=…` (median of the rounds; the first is a `veil-token`, Ed25519).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from veilstream.contracts.errors import RecordError
from veilstream.contracts.token import BEARER_HEADER, HEADER, Claims, sign_token, value_digest
from veilstream.tenancy.token_check import check_token, presented
from veilstream.tenancy.token_keys import KeySet, VerifyingKey
from veilstream.tenancy.token_rules import BearerRules, TokenRules

ROUNDS = 15
CHECKS = 400
VALUE = b'{"tenant":"acme","text":"' + b"x" * 2_000 + b'"}'
RULES = TokenRules(required=True, bearer=BearerRules())
NOW_S = 1_800_000_000


def main() -> None:
    """Measure and print."""
    print("token: " + " ".join(f"{name}={us:.0f}" for name, us in measured().items()))


def measured() -> dict[str, float]:
    """Microseconds by name."""
    own, rsa_key, ec_key = (
        Ed25519PrivateKey.generate(), rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP256R1()),
    )  # fmt: skip
    algorithms = jwt.algorithms.get_default_algorithms()
    keys = KeySet(
        {
            name: VerifyingKey(jwt.PyJWK(algorithms[name].to_jwk(key.public_key(), as_dict=True), name), name)
            for name, key in (("EdDSA", own), ("RS256", rsa_key), ("ES256", ec_key))
        }
    )
    body = {
        "tenant": "acme", "sub": "shop", "permissions": ["produce"], "jti": "x" * 22, "iat": NOW_S, "exp": NOW_S + 60,
        "aud": "veilstream",
    }  # fmt: skip
    claims = Claims("acme", "shop", ("produce",), "x" * 22, NOW_S, NOW_S, NOW_S + 60, value_digest(VALUE))
    token = sign_token(own, "EdDSA", claims)
    bearers = [
        (BEARER_HEADER, b"Bearer " + jwt.encode(body, key, algorithm=name, headers={"kid": name}).encode())
        for name, key in (("RS256", rsa_key), ("ES256", ec_key))
    ]
    unknown = sign_token(own, "nobody", claims)
    asked = [(HEADER, token.encode()), *bearers, (HEADER, unknown.encode())]
    found = [microseconds(lambda header=header: _check(header, keys)) for header in asked]
    return dict(zip(("token_us", "rs256_us", "es256_us", "refused_us"), found, strict=True))


def _check(header: tuple[str, bytes], keys: KeySet) -> None:
    given = presented((header,), RULES)
    assert given is not None
    try:
        check_token(given, keys, RULES, tenant="acme", value=VALUE, received_ms=NOW_S * 1000, revoked=lambda *_: False)
    except RecordError as exc:
        assert exc.reason_code == "token_unknown_key"


def microseconds(work: Callable[[], None]) -> float:
    """CPU time: what runs beside it does not count."""
    work()
    rounds = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for _ in range(CHECKS):
            work()
        rounds.append((time.thread_time() - began) / CHECKS * 1e6)
    return statistics.median(rounds)


if __name__ == "__main__":
    main()
