"""The published vectors of the standards, through the primitives as we configure them, and our functions beside a plain reading
of each standard that gives the same vectors."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from veilstream.contracts import sealing
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Sealed
from veilstream.keys.derived import derive

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "sealing_vectors.json").read_text())
"""Key derivation: RFC 5869, A.1 to A.3. AES-256-GCM: NIST CAVP, gcmDecrypt256.rsp. HPKE: the vectors of RFC 9180."""


def raw(vector: dict[str, str], *names: str) -> list[bytes]:
    return [bytes.fromhex(vector[name]) for name in names]


def plain_extract(salt: bytes, secret: bytes) -> bytes:
    """RFC 5869, 2.2."""
    return hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()


def plain_expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, 2.3."""
    out = block = b""
    for number in range(1, 1 + -(-length // 32)):
        block = hmac.new(key, block + info + bytes([number]), hashlib.sha256).digest()
        out += block
    return out[:length]


@pytest.mark.parametrize("vector", VECTORS["hkdf-sha256"], ids=lambda v: v["name"])
def test_hkdf(vector: dict[str, str]) -> None:
    """RFC 5869, both in the library and as read from the text."""
    ikm, salt, info, prk, okm = raw(vector, "ikm", "salt", "info", "prk", "okm")
    assert HKDF(hashes.SHA256(), len(okm), salt=salt or None, info=info).derive(ikm) == okm
    assert (plain_extract(salt, ikm), plain_expand(prk, info, len(okm))) == (prk, okm)


def test_the_keys_of_a_root_key_are_its_hkdf() -> None:
    """Each use has an info of its own, which names the key: no two uses, and no two keys of one root, are alike."""
    root = bytes(range(32))
    keys = derive(root, "acme/2", 2)
    given = {"seal": keys.seal, "hash": keys.hash, "actor": keys.actor, "lane": keys.lane, "hpke": keys.hpke_private}
    for use, key in given.items():
        assert key == plain_expand(plain_extract(b"", root), f"veil-v1|acme/2|{use}".encode(), 32), use
    assert len({*given.values(), *raw({"other": derive(root, "acme/1", 1).seal.hex()}, "other")}) == 6


@pytest.mark.parametrize("vector", VECTORS["aes-256-gcm"], ids=lambda v: v["name"])
def test_aes_gcm(vector: dict[str, str]) -> None:
    """NIST's: what opens opens to that text and seals to those bytes, what must fail fails."""
    key, nonce, ciphertext, aad, tag = raw(vector, "key", "iv", "ct", "aad", "tag")
    cipher = AESGCM(key)
    if "pt" not in vector:
        with pytest.raises(InvalidTag):
            cipher.decrypt(nonce, ciphertext + tag, aad)
        return
    (text,) = raw(vector, "pt")
    assert cipher.decrypt(nonce, ciphertext + tag, aad) == text
    assert cipher.encrypt(nonce, text, aad) == ciphertext + tag


def test_what_we_seal_is_aes_256_gcm_under_the_messages_own_key() -> None:
    """Key: HMAC-SHA256 of the associated data; nonce of 96 bits; tag of 128 bits at the end (docs/adr/0003)."""
    key, bound_to = bytes(range(32)), sealing.associated_data("acme", Origin("c", "veil.requests", 0, 7), "gated", b"")
    sealed = sealing.seal(key, "acme/1", b"Ada Lovelace", bound_to)
    cipher = AESGCM(hmac.new(key, bound_to, hashlib.sha256).digest())
    assert cipher.decrypt(sealed.nonce, sealed.ciphertext, bound_to) == b"Ada Lovelace"
    assert (len(sealed.nonce), len(sealed.ciphertext)) == (12, len(b"Ada Lovelace") + 16)
    nonce = bytes(12)
    ours = Sealed(sealing.AES_GCM, "acme/1", nonce, cipher.encrypt(nonce, b"text", bound_to))
    assert sealing.unseal(key, ours, bound_to) == b"text"


SUITE_ID = b"HPKE" + bytes.fromhex("002000010002")  # DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM
KEM_ID = b"KEM" + bytes.fromhex("0020")


def labeled(suite: bytes, label: bytes, ikm: bytes, salt: bytes = b"") -> bytes:
    """RFC 9180, 4: LabeledExtract."""
    return plain_extract(salt, b"HPKE-v1" + suite + label + ikm)


def expanded(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180, 4: LabeledExpand."""
    return plain_expand(key, length.to_bytes(2) + b"HPKE-v1" + suite + label + info, length)


def plain_hpke(private: bytes, encapsulated: bytes, info: bytes) -> tuple[bytes, bytes, bytes]:
    """RFC 9180, 4.1 and 5.1, base mode, for the receiver: shared secret, key, base nonce."""
    mine = X25519PrivateKey.from_private_bytes(private)
    shared_point = mine.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    context = encapsulated + mine.public_key().public_bytes_raw()
    secret = expanded(KEM_ID, labeled(KEM_ID, b"eae_prk", shared_point), b"shared_secret", context, 32)
    schedule = b"\0" + labeled(SUITE_ID, b"psk_id_hash", b"") + labeled(SUITE_ID, b"info_hash", info)
    key = labeled(SUITE_ID, b"secret", b"", salt=secret)
    return secret, expanded(SUITE_ID, key, b"key", schedule, 32), expanded(SUITE_ID, key, b"base_nonce", schedule, 12)


HPKE: dict[str, str] = VECTORS["hpke-x25519-sha256-aes-256-gcm-base"]


def test_hpke_as_read_from_the_text_gives_the_vector() -> None:
    """Shared secret, key, base nonce and the first ciphertext, byte by byte."""
    private, encapsulated, info, public = raw(HPKE, "skRm", "enc", "info", "pkRm")
    assert sealing.hpke_public_key(private) == public
    assert plain_hpke(private, encapsulated, info) == tuple(raw(HPKE, "shared_secret", "key", "base_nonce"))
    key, nonce, text, aad, ciphertext = raw(HPKE, "key", "base_nonce", "pt", "aad", "ct")
    assert AESGCM(key).encrypt(nonce, text, aad) == ciphertext


def test_the_suite_we_use_opens_what_the_vector_s_key_sealed() -> None:
    """The one-shot form has no associated data, so the vector's own key and nonce seal the text anew without it."""
    private, encapsulated, info, key, nonce, text = raw(HPKE, "skRm", "enc", "info", "key", "base_nonce", "pt")
    ciphertext = encapsulated + AESGCM(key).encrypt(nonce, text, b"")
    assert sealing._SUITE.decrypt(ciphertext, X25519PrivateKey.from_private_bytes(private), info=info) == text


def test_another_s_hpke_and_ours_understand_each_other() -> None:
    """Any RFC 9180 library can seal for us and open what we sealed: enc, then ciphertext; info names the tenant."""
    private, ephemeral = raw(HPKE, "skRm", "skEm")
    info = b"veil-hpke-v1|acme"
    sealed = sealing.hpke_seal(sealing.hpke_public_key(private), "acme/1", b"Ada Lovelace", "acme")
    _, key, nonce = plain_hpke(private, sealed.ciphertext[:32], info)
    assert AESGCM(key).decrypt(nonce, sealed.ciphertext[32:], b"") == b"Ada Lovelace"
    encapsulated = sealing.hpke_public_key(ephemeral)
    _, key, nonce = plain_hpke(private, encapsulated, info)
    theirs = Sealed(sealing.HPKE, "acme/1", b"", encapsulated + AESGCM(key).encrypt(nonce, b"Grace", b""))
    assert sealing.hpke_unseal(private, theirs, "acme") == b"Grace"
