"""From plain arguments to a request, and to its bytes."""

from __future__ import annotations

from typing import Any, Literal

import orjson
import pytest

from veilstream.client.async_client import AsyncClient
from veilstream.client.request import check_region, content_of, encoded, sealed_request
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ClientError
from veilstream.contracts.records import Content, Message, PublicKey, Request, Sealed
from veilstream.contracts.sealing import HPKE, hpke_public_key, hpke_unseal
from veilstream.settings import Settings

PRIVATE = bytes(range(32))
KEY = PublicKey("acme", "acme/1", HPKE, hpke_public_key(PRIVATE))

CONTENTS: dict[str, tuple[dict[str, Any], Content]] = {
    "text": ({"text": "a"}, Content(text="a")),
    "empty text": ({"text": ""}, Content(text="")),
    "messages": (
        {"messages": [{"role": "user", "content": "a"}, Message("system", "b")]},
        Content(messages=(Message("user", "a"), Message("system", "b"))),
    ),
    "no messages": ({"messages": []}, Content(messages=())),
    "document": ({"document": {"a": 1}}, Content(document='{"a":1}')),
    "document, fields": (
        {"document": {"a": "x"}, "text_fields": ["a"]},
        Content(document='{"a":"x"}', text_fields=("a",)),
    ),
}


@pytest.mark.parametrize(("arguments", "content"), CONTENTS.values(), ids=CONTENTS)
def test_one_of_three_contents(arguments: dict[str, Any], content: Content) -> None:
    """Text, messages or a document, each in the form of veil.Content."""
    assert content_of(**arguments) == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one"),
        ({"text": "secret", "document": {}}, "exactly one"),
        ({"text": "secret", "text_fields": ["a"]}, "text_fields name fields of a document"),
        ({"messages": [{"role": "user"}]}, "role"),
        ({"messages": [{"role": "user", "content": 7}]}, "role"),
        ({"messages": ["secret"]}, "role"),
        ({"document": {"a": object()}}, "must be JSON"),
        ({"document": {1: "secret"}}, "must be JSON"),
        ({"document": {"a": "secret\ud800"}}, "must be JSON"),
    ],
)
def test_what_is_no_content_is_refused(arguments: dict[str, Any], message: str) -> None:
    """Neither, both, or a wrong form: an error that says what to give and quotes nothing."""
    with pytest.raises(ClientError, match=message) as caught:
        content_of(**arguments)
    assert "secret" not in str(caught.value)


def test_sealing_hides_everything_but_tenant_and_request_id() -> None:
    """The payload opens with the tenant's key to natural JSON with every option that is not at its default."""
    request = Request(
        "acme", Content(text="a"), request_id="r", conversation="c", policy="p", cache=False, metadata={"k": "v"}
    )
    sealed = sealed_request(request, KEY)
    assert isinstance(sealed.payload, Sealed)
    assert orjson.loads(hpke_unseal(PRIVATE, sealed.payload, "acme")) == {
        "text": "a", "conversation": "c", "policy": "p", "cache": False, "metadata": {"k": "v"},
    }  # fmt: skip
    assert sealed == Request("acme", sealed.payload, request_id="r")
    assert sealed_request(sealed, KEY) is sealed


def test_a_key_of_another_suite_is_refused() -> None:
    """A suite this client does not know is not guessed at."""
    with pytest.raises(ClientError, match="update the client"):
        sealed_request(Request("acme", Content(text="a")), PublicKey("acme", "k", "HPKE-later", b""))


@pytest.mark.parametrize("seal_to", [None, KEY])
def test_the_key_keeps_a_conversation_together(seal_to: PublicKey | None) -> None:
    """A conversation has one key and so one partition, sealed or not, which does not tell its name; without one it is free."""
    conversations = ("anna", "anna", "", None, "é")
    keys = [encoded(Request("acme", Content(text="a"), conversation=c), Codec(), seal_to)[0] for c in conversations]
    assert keys[0] == keys[1]
    assert len({keys[1], keys[2], keys[4]}) == 3
    assert keys[3] is None
    assert not any(b"anna" in key for key in keys if key is not None)


@pytest.mark.parametrize("seal", [True, False])
def test_a_lone_surrogate_is_told_in_words(seal: bool) -> None:
    """Text that is no Unicode cannot be sent, sealed or plain; the error does not quote it."""
    request = Request("acme", Content(text="secret\ud800"))
    with pytest.raises(ClientError, match="not valid Unicode") as caught:
        encoded(request, Codec(), KEY if seal else None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("of_tenant", "of_client", "refused"),
    [("eu", None, False), ("eu", "eu", False), ("eu", "us", True), ("us", "eu", True), ("", "eu", False), ("", None, False),
     ("moon", "eu", True)],
)  # fmt: skip
def test_nothing_leaves_for_a_tenant_of_another_region(of_tenant: str, of_client: str | None, refused: bool) -> None:
    """Where the client has one and the tenant's key tells one; a region of a later release is another one too."""
    key = PublicKey("acme", "acme/1", HPKE, b"k" * 32, of_tenant)
    if not refused:
        check_region(key, of_client)
        return
    with pytest.raises(ClientError, match="nothing was sent") as caught:
        check_region(key, of_client)
    assert caught.value.reason_code == "wrong_region"


class _Keys:
    """What a client follows."""

    async def public_key(self, tenant: str) -> PublicKey:
        return PublicKey(tenant, f"{tenant}/1", HPKE, hpke_public_key(PRIVATE), "us" if tenant == "acme" else "eu")


@pytest.mark.parametrize("seal", [True, False])
@pytest.mark.parametrize(("region", "sent"), [(None, ["acme", "euro"]), ("us", ["acme"]), ("eu", ["euro"])])
async def test_a_request_for_another_region_is_refused_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch, region: Literal["us", "eu"] | None, sent: list[str], *, seal: bool
) -> None:
    """Sealed or not; the record never reaches the producer."""
    client = AsyncClient("b:1", settings=Settings(region=region))
    appended: list[Request] = []

    async def follower() -> _Keys:
        return _Keys()

    async def append(topic: str, key: bytes | None, value: bytes, *_: object) -> None:
        appended.append(client.codec.decode(Request, value))

    monkeypatch.setattr(client, "_follower", follower)
    monkeypatch.setattr(client, "append", append)
    for tenant in ("acme", "euro"):
        try:
            await client.send(Request(tenant, Content(text="secret")), seal=seal)
        except ClientError as exc:
            assert exc.reason_code == "wrong_region"
            assert "secret" not in str(exc)
    assert [request.tenant for request in appended] == sent
    assert {isinstance(request.payload, Sealed) for request in appended} == {seal}
