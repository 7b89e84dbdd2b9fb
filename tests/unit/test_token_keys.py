"""JWK sets: which keys are taken from one, and what is no set at all."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.token_bench import OTHER, OWN, P256, RSA, b64, jwk, key_set
from veilstream.contracts.errors import WorldError
from veilstream.tenancy.token_keys import SET_BYTES_MAX, parse_key_set

GOOD = jwk(OWN, "k")
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)
P384 = ec.generate_private_key(ec.SECP384R1())
ED448 = {"kty": "OKP", "crv": "Ed448", "x": b64(ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw())}


@pytest.mark.parametrize(
    ("entry", "algorithm"),
    [
        (GOOD, "EdDSA"),
        (GOOD | {"alg": "EdDSA", "use": "sig", "key_ops": ["verify"], "x5t": "a", "n": "b"}, "EdDSA"),
        (GOOD | {"alg": "Ed25519"}, "EdDSA"),
        (jwk(RSA, "k"), "RS256"),
        (jwk(RSA, "k", alg="RS256"), "RS256"),
        (jwk(P256, "k", alg="ES256"), "ES256"),
    ],
)
def test_a_key_has_the_one_algorithm_of_its_type(entry: dict[str, Any], algorithm: str) -> None:
    """Ed25519, RSA and P-256, whatever else the entry says of itself."""
    found = parse_key_set(key_set(entry))
    assert [(kid, key.algorithm, key.jwk.algorithm_name) for kid, key in found.keys.items()] == [
        ("k", algorithm, algorithm)
    ]
    assert found.left_out == 0


@pytest.mark.parametrize(
    "entry",
    [
        "k", None, {}, {"kid": "k"},
        {name: value for name, value in GOOD.items() if name != "kid"},
        GOOD | {"kid": ""}, GOOD | {"kid": 7}, GOOD | {"kid": "x" * 257},
        GOOD | {"use": "enc"}, GOOD | {"key_ops": ["sign"]}, GOOD | {"key_ops": "verify"},
        GOOD | {"alg": "HS256"}, GOOD | {"alg": "RS256"}, GOOD | {"alg": "none"}, GOOD | {"alg": ["EdDSA"]},
        GOOD | {"kty": ["OKP"]}, GOOD | {"crv": "X25519"}, GOOD | {"crv": {}},
        GOOD | {"x": "AA"}, GOOD | {"x": 5}, GOOD | {"x": "ü"},
        GOOD | {"d": b64(bytes(32))},
        GOOD | {"veil_tenants": "acme"}, GOOD | {"veil_tenants": [1]}, GOOD | {"veil_tenants": None},
        {"kty": "oct", "k": b64(bytes(32)), "kid": "k"}, {"kty": "oct", "k": b64(bytes(32)), "kid": "k", "alg": "HS256"},
        jwk(SHORT, "k"), jwk(RSA, "k", alg="PS256"), jwk(RSA, "k", alg="RS512"), jwk(P384, "k"), ED448 | {"kid": "k"},
    ],
)  # fmt: skip
def test_a_key_that_is_of_no_use_is_left_out_and_counted(entry: Any) -> None:
    """Symmetric, private, short, nameless, for something else: the others of the set are taken all the same."""
    found = parse_key_set(key_set(entry, jwk(OTHER, "other")))
    assert (list(found.keys), found.left_out) == (["other"], 1)


def test_a_key_may_be_for_some_tenants_alone() -> None:
    """`veil_tenants` says which; an empty list is for none, and no list for all."""
    keys = parse_key_set(
        key_set(jwk(OWN, "a", veil_tenants=["acme"]), jwk(OWN, "b", veil_tenants=[]), jwk(OWN, "c"))
    ).keys
    assert [keys[kid].tenants for kid in "abc"] == [{"acme"}, frozenset(), None]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "no JSON object"),
        (b"[]", "no JSON object"),
        (b'{"keys": {}}', "no JSON object"),
        (b"\xff", "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b"<html>", "no JSON object"),
        (key_set(GOOD, jwk(OTHER, "k")), "same `kid`"),
        (key_set(*[jwk(OWN, str(n)) for n in range(101)]), "more than 100 keys"),
        (b" " * SET_BYTES_MAX + key_set(), "bytes"),
    ],
)
def test_what_is_no_set_is_the_world_s_fault(raw: bytes, said: str) -> None:
    """Records wait; the message quotes nothing of what was read."""
    with pytest.raises(WorldError, match=said) as caught:
        parse_key_set(raw)
    assert caught.value.reason_code == "token_keys_unavailable"
    assert "html" not in str(caught.value)


def test_an_empty_set_is_one() -> None:
    """Who takes the last key away means it."""
    assert parse_key_set(key_set()).keys == {}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["keys", "kty", "crv", "x", "kid", "alg", "use", "n", "e", "y"]), inner),
                    max_leaves=12))  # fmt: skip
def test_no_json_raises_anything_else(document: Any) -> None:
    """A server can answer what it wants."""
    import json

    try:
        parse_key_set(json.dumps(document).encode())
    except WorldError as exc:
        assert exc.reason_code == "token_keys_unavailable"
