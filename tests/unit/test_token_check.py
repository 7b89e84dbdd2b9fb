"""Tokens: each way one can be wrong is refused with its own code, and what is next to it is taken."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.token_bench import (
    CLAIMS,
    GONE,
    NOW_S,
    OTHER,
    OWN,
    RSA,
    SET,
    VALUE,
    b64,
    claims,
    jws,
    public_pem,
    token,
)
from veilstream.contracts.errors import RecordError
from veilstream.contracts.reasons import is_senders, reasons
from veilstream.contracts.records import TokenUse
from veilstream.contracts.token import HEADER, MAX_BYTES, Claims, sign_token, use_id, value_digest
from veilstream.tenancy.token_check import check_token, presented
from veilstream.tenancy.token_keys import parse_key_set
from veilstream.tenancy.token_rules import BearerRules, TokenRules

KEYS = parse_key_set(SET)
REQUIRED = TokenRules(required=True)
OPTIONAL = TokenRules(required=False)
BEARER = TokenRules(required=True, bearer=BearerRules())
ISSUED = TokenRules(required=True, bearer=BearerRules("https://acme.example/tenant", "https://issuer.example"))
USE = TokenUse(use_id("acme", "id-1"), (NOW_S + 90) * 1000)
HEAD = {"alg": "EdDSA", "kid": "own", "typ": "JWT"}
UNBOUND = {"digest": GONE, "nbf": GONE}
REVOKED = use_id("acme", "revoked-1")


def asked(
    *headers: tuple[str, Any],
    rules: TokenRules = REQUIRED,
    value: bytes = VALUE,
    at_ms: int = NOW_S * 1000,
    tenant: str = "acme",
) -> TokenUse | None:
    """What the gate asks of a record with these headers."""
    found = presented(tuple(headers), rules)
    if found is None:
        return None
    return check_token(
        found, KEYS, rules, tenant=tenant, value=value, received_ms=at_ms,
        revoked=lambda owner, used: (owner, used) == ("acme", REVOKED),
    )  # fmt: skip


def own(text: str | bytes) -> tuple[str, bytes]:
    return HEADER, text.encode() if isinstance(text, str) else text


def bearer(text: str, name: str = "authorization", scheme: str = "Bearer ") -> tuple[str, bytes]:
    return name, f"{scheme}{text}".encode()


def hs256(key: bytes) -> str:
    """A token signed with a public key as if it were a shared secret."""
    return jws(HEAD | {"alg": "HS256"}, CLAIMS, lambda signed: hmac.new(key, signed, hashlib.sha256).digest())


def none(alg: str, **head: Any) -> str:
    return jws({"alg": alg} | head, CLAIMS, lambda _: b"")


MAX_TOKEN = next(made for n in range(4) if len(made := token(extra="x" * (5_840 + n))) in (MAX_BYTES, MAX_BYTES - 1))
DEEP = b"[" * 4_000

TAKEN: dict[str, tuple[list[tuple[str, Any]], dict[str, Any]]] = {
    "good": ([own(token())], {}),
    "beside other headers": ([("traceparent", b"x"), own(token()), ("ce_id", b"1")], {}),
    "under a header name in capitals": ([("Veil-Token", token().encode())], {}),
    "the longest": ([own(MAX_TOKEN)], {}),
    "for several audiences, ours among them": ([own(token(aud=["a", "veilstream"]))], {}),
    "with more permissions": ([own(token(permissions=["read", "produce"]))], {}),
    "with times that are no whole seconds": ([own(token(iat=NOW_S - 0.5, nbf=NOW_S - 0.5))], {}),
    "with claims of others": ([own(token(iss="x", extra={"a": [1]}))], {}),
    "in the last millisecond with leeway": ([own(token())], {"at_ms": (NOW_S + 90) * 1000 - 1}),
    "in the first millisecond with leeway": ([own(token())], {"at_ms": (NOW_S - 30) * 1000}),
    "as long-lived as may be": ([own(token(exp=NOW_S + 900))], {}),
    "with a key of that tenant alone": ([own(token("globex", tenant="globex"))], {"tenant": "globex"}),
    "of the client library": (
        [own(sign_token(OWN, "own", Claims("acme", "shop", ("produce",), "id-1", NOW_S, NOW_S, NOW_S + 60,
                                           value_digest(VALUE))))], {}),
    "bearer, Ed25519": ([bearer(token(**UNBOUND))], {"rules": BEARER}),
    "bearer, RSA": ([bearer(token("rsa", **UNBOUND))], {"rules": BEARER}),
    "bearer, P-256": ([bearer(token("p256", **UNBOUND))], {"rules": BEARER}),
    "bearer as HTTP bridges write it": ([bearer(token(**UNBOUND), "Authorization", "bearer  ")], {"rules": BEARER}),
    "bearer with a scope": ([bearer(token(permissions=GONE, scope="openid produce", **UNBOUND))], {"rules": BEARER}),
    "bearer of the issuer": (
        [bearer(token(**UNBOUND | {"https://acme.example/tenant": "acme", "iss": "https://issuer.example"}, tenant="nobody"))],
        {"rules": ISSUED}),
    "bearer that is bound after all": ([bearer(token())], {"rules": BEARER}),
    "a veil-token where bearers are taken": ([own(token())], {"rules": BEARER}),
    "beside an authorization header that is not looked at": ([own(token()), ("authorization", b"Basic eDp5")], {}),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "how"), TAKEN.values(), ids=TAKEN)
def test_a_token_that_is_right_is_taken(headers: list[tuple[str, Any]], how: dict[str, Any]) -> None:
    """What is remembered of it is a digest and a time, after which it is of no use."""
    use = asked(*headers, **how)
    assert use is not None
    assert use.id == use_id(how.get("tenant", "acme"), "id-1")
    assert use.expires_ms in ((NOW_S + 90) * 1000, (NOW_S + 930) * 1000)


REFUSED: dict[str, tuple[list[tuple[str, Any]], str, dict[str, Any]]] = {
    "none": ([], "token_missing", {}),
    "none, but a bearer that is not taken": ([bearer(token(**UNBOUND))], "token_missing", {}),
    "none, but one under a like name": ([("veil_token", token().encode())], "token_missing", {}),
    "two": ([own(token()), own(token(jti="2"))], "token_duplicate", {}),
    "the same twice": ([own(token()), own(token())], "token_duplicate", {}),
    "two, one in capitals": ([own(token()), ("VEIL-TOKEN", token().encode())], "token_duplicate", {}),
    "two, where none is needed": ([own(token()), own(token())], "token_duplicate", {"rules": OPTIONAL}),
    "a token and a bearer": ([own(token()), bearer(token(**UNBOUND))], "token_duplicate", {"rules": BEARER}),
    "two bearers": ([bearer("a"), bearer("b", "Authorization")], "token_duplicate", {"rules": BEARER}),
    "empty": ([own("")], "token_malformed", {}),
    "a header without a value": ([(HEADER, None)], "token_malformed", {}),
    "one byte too long": ([own(MAX_TOKEN.ljust(MAX_BYTES + 1, "A"))], "token_malformed", {}),
    "huge": ([own(b"." * 1_000_000)], "token_malformed", {}),
    "two parts": ([own("a.b")], "token_malformed", {}),
    "four parts": ([own(token() + ".e30")], "token_malformed", {}),
    "no base64": ([own(f"!{token()}")], "token_malformed", {}),
    "ordinary base64": ([own(token().replace(".", ".+/", 1))], "token_malformed", {}),
    "no UTF-8": ([own(b"\xff\xfe")], "token_malformed", {}),
    "line break behind it": ([own(token() + "\n")], "token_malformed", {}),
    "a header that is no object": ([own(jws(b"[]", CLAIMS))], "token_malformed", {}),
    "a header nested deep": ([own(jws(DEEP, CLAIMS))], "token_malformed", {}),
    "claims nested deep": ([own(jws(HEAD, DEEP))], "token_malformed", {}),
    "claims that are no object": ([own(jws(HEAD, ["acme"]))], "token_malformed", {}),
    "a critical extension": ([own(jws(HEAD | {"crit": ["exp"], "exp": 1}, CLAIMS))], "token_malformed", {}),
    "a detached payload": ([own(jws(HEAD | {"b64": False, "crit": ["b64"]}, b""))], "token_malformed", {}),
    "no key id": ([own(jws({"alg": "EdDSA"}, CLAIMS))], "token_malformed", {}),
    "a key id that is none": ([own(jws(HEAD | {"kid": 1}, CLAIMS))], "token_malformed", {}),
    "alg none": ([own(none("none"))], "token_algorithm", {}),
    "alg none with a key id": ([own(none("none", kid="own"))], "token_algorithm", {}),
    "alg nOnE": ([own(none("nOnE", kid="own"))], "token_algorithm", {}),
    "alg none, a good signature": ([own(jws(HEAD | {"alg": "none"}, CLAIMS))], "token_algorithm", {}),
    "no alg": ([own(jws({"kid": "own"}, CLAIMS))], "token_algorithm", {}),
    "alg that is no name": ([own(jws(HEAD | {"alg": ["EdDSA"]}, CLAIMS))], "token_algorithm", {}),
    "HS256 with the public key": ([own(hs256(OWN.public_key().public_bytes_raw()))], "token_algorithm", {}),
    "HS256 with the public key as PEM": ([own(hs256(public_pem(OWN)))], "token_algorithm", {}),
    "RS256 with an RSA key": ([own(token("rsa"))], "token_algorithm", {}),
    "ES256 with a P-256 key": ([own(token("p256"))], "token_algorithm", {}),
    "EdDSA under the id of an RSA key": ([own(jws(HEAD | {"kid": "rsa"}, CLAIMS))], "token_algorithm", {}),
    "a key that is not in the set": ([own(token("other"))], "token_unknown_key", {}),
    "a key named in the token itself": (
        [own(jws({"alg": "EdDSA", "kid": "new", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(32))}}, CLAIMS))],
        "token_unknown_key", {}),
    "a key's address in the token itself": (
        [own(jws({"alg": "EdDSA", "kid": "new", "jku": "http://127.0.0.1/"}, CLAIMS))], "token_unknown_key", {}),
    "signed with another key": ([own(jws(HEAD, CLAIMS, OTHER.sign))], "token_bad_signature", {}),
    "no signature": ([own(token().rpartition(".")[0] + ".")], "token_bad_signature", {}),
    "claims exchanged": (
        [own(".".join([token().split(".")[0], b64(json.dumps(claims(tenant="globex")).encode()), token().split(".")[2]]))],
        "token_bad_signature", {"tenant": "globex"}),
    "another audience": ([own(token(aud="billing"))], "token_wrong_audience", {}),
    "other audiences": ([own(token(aud=["billing", "veilstream2"]))], "token_wrong_audience", {}),
    "no audience": ([own(token(aud=[]))], "token_wrong_audience", {}),
    "expired, to the millisecond": ([own(token())], "token_expired", {"at_ms": (NOW_S + 90) * 1000}),
    "expired long ago": ([own(token())], "token_expired", {"at_ms": (NOW_S + 9_000_000) * 1000}),
    "a millisecond too early": ([own(token())], "token_not_yet_valid", {"at_ms": (NOW_S - 30) * 1000 - 1}),
    "issued in the future": ([own(token(iat=NOW_S + 31))], "token_not_yet_valid", {}),
    "valid for too long": ([own(token(exp=NOW_S + 901))], "token_too_long_lived", {}),
    "another record": ([own(token())], "token_other_record", {"value": VALUE + b" "}),
    "the digest in hex": ([own(token(digest=hashlib.sha256(VALUE).hexdigest()))], "token_other_record", {}),
    "a digest that is not ASCII": ([own(token(digest="ä" * 43))], "token_other_record", {}),
    "another tenant": ([own(token())], "token_wrong_tenant", {"tenant": "globex"}),
    "the tenant in other letters": ([own(token(tenant="ACME"))], "token_wrong_tenant", {}),
    "a key of another tenant": ([own(token("globex"))], "token_wrong_tenant", {}),
    "no permission": ([own(token(permissions=["read"]))], "token_no_permission", {}),
    "no permissions": ([own(token(permissions=[]))], "token_no_permission", {}),
    "a permission that begins alike": ([own(token(permissions=["produce:audit"]))], "token_no_permission", {}),
    "revoked": ([own(token(jti="revoked-1"))], "token_revoked", {}),
    "a bearer of another scheme": ([bearer("eDp5", scheme="Basic ")], "token_malformed", {"rules": BEARER}),
    "a bearer without id": ([bearer(token(**UNBOUND, jti=GONE))], "token_malformed", {"rules": BEARER}),
    "a bearer without a right": ([bearer(token(**UNBOUND, permissions=GONE))], "token_malformed", {"rules": BEARER}),
    "a bearer with another scope": (
        [bearer(token(**UNBOUND, permissions=GONE, scope="openid"))], "token_no_permission", {"rules": BEARER}),
    "a bearer without our claim": ([bearer(token(**UNBOUND))], "token_malformed", {"rules": ISSUED}),
    "a bearer of another issuer": (
        [bearer(token(**UNBOUND | {"https://acme.example/tenant": "acme", "iss": "https://issuer.example.evil"}))],
        "token_wrong_issuer", {"rules": ISSUED}),
    "a bearer, expired": ([bearer(token(**UNBOUND))], "token_expired", {"rules": BEARER, "at_ms": (NOW_S + 90) * 1000}),
    "a bearer, HS256 with the RSA key as PEM": (
        [bearer(jws({"alg": "HS256", "kid": "rsa"}, CLAIMS,
                    lambda signed: hmac.new(public_pem(RSA), signed, hashlib.sha256).digest()))],
        "token_algorithm", {"rules": BEARER}),
    "a bearer, PS256": ([bearer(token("rsa", alg="PS256", **UNBOUND))], "token_algorithm", {"rules": BEARER}),
    "a bearer, RS512": ([bearer(token("rsa", alg="RS512", **UNBOUND))], "token_algorithm", {"rules": BEARER}),
    "a captured veil-token as a bearer": (
        [bearer(token())], "token_other_record", {"rules": BEARER, "value": VALUE + b" "}),
    "a bearer as a veil-token": ([own(token(**UNBOUND))], "token_malformed", {"rules": BEARER}),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "code", "how"), REFUSED.values(), ids=REFUSED)
def test_a_token_that_is_wrong_is_refused_with_its_own_reason(
    headers: list[tuple[str, Any]], code: str, how: dict[str, Any]
) -> None:
    """The sender can mend it, and reads the fixed words of the code: nothing of the token, the key or the record."""
    with pytest.raises(RecordError) as caught:
        asked(*headers, **how)
    assert caught.value.reason_code == code
    assert str(caught.value) == reasons()[code].message
    assert is_senders(code)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize(
    "wrong",
    [GONE, None, True, {}, [1], "", -1, 1e400, float("nan"), 10**400, "\ud800", "x" * 300],
    ids=lambda wrong: "gone" if wrong is GONE else repr(wrong)[:20],
)
def test_a_claim_of_a_wrong_type_is_malformed(claim: str, wrong: Any) -> None:
    """Each claim is needed, of its type and size. Where the odd value is one of the type, another check refuses it."""
    text = json.dumps({**CLAIMS, claim: wrong} if wrong is not GONE else claims(**{claim: GONE}))
    with pytest.raises(RecordError) as caught:
        asked(own(jws(HEAD, text.encode())))
    fitting = {"aud": "token_wrong_audience"} if isinstance(wrong, str) else {}
    assert caught.value.reason_code == fitting.get(claim, "token_malformed")


def test_no_token_is_fine_where_none_is_needed() -> None:
    """Optional: a record without one goes on, one with a bad one does not."""
    assert asked(rules=OPTIONAL) is None
    assert asked(own(token()), rules=OPTIONAL) == USE
    with pytest.raises(RecordError):
        asked(own("x"), rules=OPTIONAL)


def test_every_code_of_the_suite_is_written_down() -> None:
    """docs/reasons.md explains each, and each is tried here but those that admit refuses with."""
    tried = {code for _, code, _ in REFUSED.values()}
    assert {code for code in reasons() if code.startswith("token_") and is_senders(code)} - tried == {
        "token_replayed",
        "token_outlived",
    }


def _bytes() -> st.SearchStrategy[bytes]:
    """Bytes of every kind: any, any parts, and a good token with some of its bytes exchanged."""
    good = token().encode()
    parts = st.lists(st.binary(max_size=60).map(lambda raw: b64(raw).encode()), max_size=5).map(b".".join)
    heads = st.fixed_dictionaries(
        {"alg": st.sampled_from(["EdDSA", "RS256", "none"]), "kid": st.sampled_from(["own", "rsa"])}
    )
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=4,
    )
    bodies = st.dictionaries(st.sampled_from(sorted(CLAIMS)), values).map(lambda found: CLAIMS | found)
    signed = st.tuples(heads, bodies).map(lambda pair: jws(*pair).encode())
    changed = st.tuples(st.integers(0, len(good) - 1), st.binary(max_size=3)).map(
        lambda at: good[: at[0]] + at[1] + good[at[0] + 1 :]
    )
    return st.binary(max_size=200) | parts | signed | changed


@given(_bytes(), st.booleans())
def test_no_bytes_raise_anything_but_a_code(raw: bytes, as_bearer: bool) -> None:
    """Whatever stands in the header: it is taken, or refused with a code that is written down."""
    header = ("authorization", b"Bearer " + raw) if as_bearer else own(raw)
    try:
        asked(header, rules=BEARER)
    except RecordError as exc:
        assert exc.reason_code in reasons()
        assert exc.reason_code.startswith("token_")


@given(st.integers(0, len(token()) - 1), st.sampled_from("ABCxyz019-_.="))
def test_no_token_with_a_changed_byte_is_taken(at: int, byte: str) -> None:
    """The signature covers header and claims; the signature itself has one form."""
    good = token()
    if good[at] == byte:
        return
    with pytest.raises(RecordError):
        asked(own(good[:at] + byte + good[at + 1 :]))


def test_rfc_8037() -> None:
    """Appendix A: the key's entry verifies the example, and its private part signs it to the same bytes."""
    x, d = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
    compact = (
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR"
        "4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    entry = {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "rfc"}
    key = parse_key_set(json.dumps({"keys": [entry]}).encode()).keys["rfc"]
    assert jwt.PyJWS().decode(compact, key.jwk, algorithms=[key.algorithm]) == b"Example of Ed25519 signing"
    private = jwt.PyJWK(entry | {"d": d}, "EdDSA").key
    signed = jwt.PyJWS().encode(b"Example of Ed25519 signing", private, algorithm="EdDSA", headers={"typ": None})
    assert signed == compact
