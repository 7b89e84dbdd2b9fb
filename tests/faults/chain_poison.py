"""Poison of every kind among good records: each has its outcome, and no good one is touched by it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping

from aiokafka import AIOKafkaProducer
from confluent_kafka import KafkaError, Producer

from tests.faults.chain_rig import TENANT, ChainRig
from tests.faults.chain_window import CONVERSATIONS, Window
from tests.pipeline.chain import until
from veilstream.client.async_client import AsyncClient
from veilstream.contracts.catalogue import GATED, REQUESTS
from veilstream.contracts.codec import MARKER, Codec
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Envelope, Gated, Message

_SEALED = {"algorithm": "HPKE", "key_id": "no-such-key", "ciphertext": "bm90IHNlYWxlZA=="}

POISON: Mapping[str, bytes | None] = {
    "undecodable bytes": b"\x93\xfe\x00\x01",
    "not JSON": b"hello there",
    "a JSON list": b"[1, 2, 3]",
    "a JSON number": b"7",
    "half a JSON": b'{"tenant":"demo","text":"half',
    "empty": b"",
    "null value": None,
    "unknown schema": MARKER + bytes(8) + b"body",
    "another schema": Codec().encode(Message("user", "text")),
    "more than the gate takes": json.dumps({"tenant": TENANT, "text": "x" * (1 << 20)}).encode(),
    "over-long text": json.dumps({"tenant": TENANT, "text": "x" * 100_001}).encode(),
    "unknown tenant": b'{"tenant":"nobody","text":"hello"}',
    "tenant of a wrong type": b'{"tenant":["demo"],"text":"hello"}',
    "bad sealed payload": json.dumps({"tenant": TENANT, "sealed": _SEALED}).encode(),
    "sealed payload of a wrong type": b'{"tenant":"demo","sealed":"x"}',
    "nested beyond any parser": b'{"tenant":"demo","document":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested in Avro's way": b'{"tenant":"demo","document":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
    "a lone surrogate": b'{"tenant":"demo","text":"\\ud800 hello"}',
    "a surrogate as a key": b'{"tenant":"demo","document":{"\\udfff":"hello"}}',
    "a null byte": b'{"tenant":"demo","text":"\\u0000"}',
    "a huge number": b'{"tenant":"demo","document":{"n":' + b"9" * 5_000 + b"}}",
    "not a number": b'{"tenant":"demo","document":{"n":NaN}}',
}
TRUSTED_POISON: Mapping[str, bytes] = {
    "no Avro": b"not a gated record",
    "cut off": Codec().encode(Gated(Envelope(TENANT, Origin("c", "t", 0, 0), 0, b"lane"), None, ()))[:14],
}
"""What no gate writes, on the trusted topic behind it: answered for by dead letters that name its place there."""
BOMB_BYTES = 24 << 20
COMPRESSIONS = ("gzip", "snappy", "lz4", "zstd")


async def poison(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """Each kind among the conversations' records, then on the trusted topic, then bombs that the broker must refuse."""
    async with rig.client() as client:
        for raw in chance.sample(list(POISON.values()), len(POISON)):
            conversation = (
                f"poisoned{chance.randrange(CONVERSATIONS)}"  # the load has its own: two writers keep no order
            )
            await (await client.append(REQUESTS, conversation.encode(), raw))  # type: ignore[arg-type]
            await window.put(client, conversation)
        before = len(window.letters)
        await _on_trusted_topic(client)

    async def answered() -> bool:
        letters = window.letters[before:]
        return len([one for one in letters if one.coordinates.topic == GATED]) == len(TRUSTED_POISON)

    await until(answered, timeout_s=60, what="a dead letter for each corrupt record of a trusted topic")
    bootstrap = rig.stack.settings.bootstrap
    refused = [await asyncio.to_thread(_refuses_bomb, bootstrap, compression) for compression in COMPRESSIONS]
    assert all(refused), "the broker took a record that inflates beyond its limit"
    return f"{len(POISON)} kinds, {len(TRUSTED_POISON)} on a trusted topic, {len(refused)} bombs refused"


async def _on_trusted_topic(client: AsyncClient) -> None:
    producer = AIOKafkaProducer(**client.options)
    await producer.start()
    try:
        for raw in TRUSTED_POISON.values():
            await producer.send_and_wait(GATED, raw, key=TENANT.encode())
    finally:
        await producer.stop()


def _refuses_bomb(bootstrap: str, compression: str) -> bool:
    """A record of some kilobytes that would be 24 MiB in an agent."""
    answers: list[KafkaError | None] = []
    producer = Producer({
        "bootstrap.servers": bootstrap, "compression.type": compression, "message.max.bytes": 2 * BOMB_BYTES,
    })  # fmt: skip
    producer.produce(REQUESTS, b" " * BOMB_BYTES, on_delivery=lambda error, _: answers.append(error))
    producer.flush(30)
    return [error and error.code() for error in answers] == [KafkaError.MSG_SIZE_TOO_LARGE]
