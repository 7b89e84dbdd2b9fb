"""What a consumer opens of a sealed verdict is the content's natural JSON."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from veilstream.contracts.records import Content, Message
from veilstream.contracts.sealing import hpke_public_key, hpke_unseal
from veilstream.verdicts.build import sealed_for_consumer

PRIVATE = X25519PrivateKey.generate().private_bytes_raw()
HUGE = 2**64  # one more than 64 bits hold


@pytest.mark.parametrize(
    ("content", "opened"),
    [
        (Content(text="safe <é>"), '{"text":"safe <é>"}'),
        (Content(messages=(Message("user", "hi"),)), '{"messages":[{"role":"user","content":"hi"}]}'),
        (Content(document=f'{{"n":{HUGE - 1},"t":"é"}}'), f'{{"document":{{"n":{HUGE - 1},"t":"é"}}}}'),
        (Content(document=f'{{"n":{HUGE},"t":"é"}}'), f'{{"document":{{"n":{HUGE},"t":"é"}}}}'),
        (Content(document=f'{{"n":-{10**40}}}', text_fields=("t",)), f'{{"document":{{"n":-{10**40}}},"text_fields":["t"]}}'),
    ],
    ids=["text", "messages", "the largest 64 bits", "one more", "forty digits"],
)  # fmt: skip
def test_a_consumer_opens_natural_json(content: Content, opened: str) -> None:
    """Integers of any size, as a document may hold them; the same compact form on both sides of 64 bits."""
    sealed = sealed_for_consumer(content, hpke_public_key(PRIVATE), "acme")
    assert hpke_unseal(PRIVATE, sealed, "acme").decode() == opened
