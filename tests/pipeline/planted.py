"""Where a planted text could be found: every store of a running stack as bytes, and every way a text could be written there."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import re2
import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from tests.pipeline.chain import Chain

READ_S = 60.0


def spellings(raw: bytes) -> dict[str, bytes]:
    """Bytes as they are, in hex and in base64. Base64 has three readings, by where in its groups of three the bytes begin; what
    stands before and behind moves the characters at the ends, so those are left out."""
    found = {"as it is": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + raw)
        inner = whole[(0, 2, 3)[shift] : len(whole) - (0, 4, 4)[(shift + len(raw)) % 3]]
        found[f"base64 +{shift}"] = inner
        found[f"base64url +{shift}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def of_text(text: str) -> dict[str, bytes]:
    """Every spelling of a text: in UTF-8 and UTF-16, and as JSON, Python and URLs quote it."""
    found: dict[str, bytes] = {}
    for name in ("utf-8", "utf-16-le", "utf-16-be"):
        found |= {f"{name}, {way}": raw for way, raw in spellings(text.encode(name)).items()}
    quoted = json.dumps(text)[1:-1]
    found |= {
        "JSON": quoted.encode(),
        "JSON in JSON": json.dumps(quoted)[1:-1].encode(),
        "repr": repr(text)[1:-1].encode(),
    }
    found |= {"ascii()": ascii(text)[1:-1].encode(), "repr of bytes": repr(text.encode())[2:-1].encode()}
    return found | {"URL": urllib.parse.quote(text).encode(), "form": urllib.parse.quote_plus(text).encode()}


def topics(chain: Chain) -> Iterator[tuple[str, bytes]]:
    """Keys, values and headers of all records on all topics, the brokers' own and changelogs too, what was aborted as well."""
    consumer = Consumer({
        "bootstrap.servers": chain.settings.bootstrap, "group.id": "planted", "enable.auto.commit": False,
        "isolation.level": "read_uncommitted", "enable.partition.eof": True,
    })  # fmt: skip
    try:
        names = consumer.list_topics(timeout=10).topics
        parts = [TopicPartition(name, number) for name, told in names.items() for number in told.partitions]
        ends = {(p.topic, p.partition): consumer.get_watermark_offsets(p, timeout=10) for p in parts}
        left = {place: high for place, (low, high) in ends.items() if high > low}
        consumer.assign([TopicPartition(name, number, OFFSET_BEGINNING) for name, number in left])
        deadline = time.monotonic() + READ_S
        while left and time.monotonic() < deadline:
            for message in consumer.consume(1000, timeout=0.5):
                place = (message.topic(), message.partition())
                if (error := message.error()) is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    left.pop(place, None)  # behind the last record stand markers, which are none
                    continue
                if message.offset() + 1 >= left.get(place, message.offset() + 2):
                    left.pop(place)  # the brokers' own topics grow on
                parts_of = [message.key(), message.value(), *(v for _, v in message.headers() or ())]
                yield f"topic {message.topic()}", b"\0".join(_bytes(part) for part in parts_of if part is not None)
        assert not left, f"not read to the end: {left}"
    finally:
        consumer.close()


def _bytes(part: str | bytes) -> bytes:
    return part.encode() if isinstance(part, str) else part


def files(chain: Chain) -> Iterator[tuple[str, bytes]]:
    """Every file of the data folder: the broker's, Postgres's and Redis's own, logs, keys."""
    for path in sorted(chain.folder.rglob("*")):
        try:
            if path.is_file():
                yield f"file {path.relative_to(chain.folder)}", _written(path)
        except FileNotFoundError:
            continue  # a server took it away


def _written(path: Path) -> bytes:
    """What was written to a file, without its holes: the broker's indexes are 10 MiB of nothing each."""
    with path.open("rb", buffering=0) as file:
        found, at = [], 0
        with suppress(OSError):  # ENXIO: nothing written from there on
            while True:
                at = file.seek(at, os.SEEK_DATA)
                end = file.seek(at, os.SEEK_HOLE)
                file.seek(at)
                found.append(file.read(end - at))
                at = end
        return b"".join(found)


async def tables(chain: Chain) -> AsyncIterator[tuple[str, bytes]]:
    """Every table of Postgres as text: in files long values are compressed. The superuser sees all rows."""
    async with await psycopg.AsyncConnection.connect(chain.settings.postgres.get_secret_value()) as connection:
        rows = await connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname <> 'information_schema' ORDER BY 1"
        )
        for (table,) in await rows.fetchall():
            async with connection.cursor().copy(f"COPY (SELECT * FROM {table}) TO STDOUT") as copy:
                yield f"table {table}", b"".join([bytes(block) async for block in copy])


def cached(chain: Chain) -> Iterator[tuple[str, bytes]]:
    """Every key and value of Redis: in its files values may be compressed."""
    with redis.Redis.from_url(chain.settings.redis.get_secret_value()) as server:
        for key in server.scan_iter(count=1000):
            reader = {
                b"string": lambda k: [server.get(k)], b"hash": lambda k: [x for kv in server.hgetall(k).items() for x in kv],
                b"list": lambda k: server.lrange(k, 0, -1), b"set": lambda k: list(server.smembers(k)),
                b"zset": lambda k: server.zrange(k, 0, -1),
                b"stream": lambda k: [x for _, kv in server.xrange(k) for pair in kv.items() for x in pair],
            }[server.type(key)]  # fmt: skip
            yield "redis", b"\0".join([key, *reader(key)])


def told(chain: Chain) -> Iterator[tuple[str, bytes]]:
    """What each process tells of itself: its metrics and health, its command line and environment."""
    state = json.loads((chain.folder / "stack.json").read_text())
    for component in state["components"]:
        process = psutil.Process(component["pid"])
        yield f"process {component['name']}", repr((process.cmdline(), process.environ())).encode()
        for page in ("metrics", "healthz", "readyz") if component["kind"] == "agent" else ():
            with urllib.request.urlopen(f"http://127.0.0.1:{component['port']}/{page}", timeout=10) as answer:
                yield f"{page} of {component['name']}", answer.read()


async def places(chain: Chain, needles: Mapping[str, Mapping[str, bytes]]) -> dict[str, set[str]]:
    """Which needle stands where, in any of its spellings: needle to the stores that hold it. Looks at each store once."""
    found: dict[str, set[str]] = {name: set() for name in needles}
    kinds: set[str] = set()
    options = re2.Options()
    options.encoding, options.never_capture, options.max_mem = re2.Options.Encoding.LATIN1, True, 256 << 20
    every = re2.compile(b"|".join(re2.escape(needle) for ways in needles.values() for needle in ways.values()), options)

    def look(store: str, raw: bytes) -> None:
        kinds.add(store.split(maxsplit=1)[0])
        if every.search(raw) is None:  # one pass for hundreds of needles
            return
        for name, ways in needles.items():
            found[name].update(f"{store} ({way})" for way, needle in ways.items() if needle in raw)

    for stores in (topics(chain), files(chain), cached(chain), told(chain)):
        for store, raw in stores:
            look(store, raw)
    async for store, raw in tables(chain):
        look(store, raw)
    assert kinds >= {"topic", "file", "redis", "process", "metrics", "table"}, f"not all was looked at: {kinds}"
    return found


def without_doubles(needles: Iterable[tuple[str, Mapping[str, bytes]]]) -> dict[str, dict[str, bytes]]:
    """Needles with each spelling once: an ASCII text has the same bytes in several."""
    return {name: {way: raw for raw, way in {raw: way for way, raw in ways.items()}.items()} for name, ways in needles}


def names(found: Mapping[str, set[str]], of: Sequence[str]) -> set[str]:
    """The stores that hold any of these needles."""
    return {place for name in of for place in found[name]}
