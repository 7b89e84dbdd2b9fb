"""The key set in force, from a file and from a server that misbehaves: fresh, or none; and never asked too often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.unit.registry_server import Handler, Server, answer, cut, hang, serving
from tests.unit.token_bench import OTHER, OWN, jwk, key_set
from veilstream.contracts.errors import WorldError
from veilstream.keyset.follow import FollowedKeys
from veilstream.keyset.source import FileSource, UrlSource
from veilstream.tenancy.token_keys import SET_BYTES_MAX

FIRST, BOTH, SECOND = (
    key_set(*entries) for entries in ([jwk(OWN, "1")], [jwk(OWN, "1"), jwk(OTHER, "2")], [jwk(OTHER, "2")])
)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        server.always = answer(200, FIRST)
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


def of_file(path: Path, clock: Clock) -> FollowedKeys:
    return FollowedKeys(FileSource(path), refresh_s=300, interval_s=10, max_age_s=3600, clock=clock)


def of_server(server: Server, clock: Clock, *, timeout_s: float = 5.0) -> FollowedKeys:
    source = UrlSource(f"http://127.0.0.1:{server.port}/jwks", timeout_s=timeout_s)
    return FollowedKeys(source, refresh_s=300, interval_s=10, max_age_s=3600, clock=clock)


async def names(keys: FollowedKeys) -> set[str]:
    return set((await keys.current()).keys)


def put(path: Path, raw: bytes) -> None:
    """As a writer should: whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(raw)
    draft.replace(path)


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path, clock: Clock) -> None:
    """Rotation: the new key is added, then the old one removed; each is so from the next batch on."""
    path = tmp_path / "keys.json"
    put(path, FIRST)
    keys = of_file(path, clock)
    await keys.start()
    seen = [await names(keys)]
    for raw in (BOTH, SECOND, key_set()):
        put(path, raw)
        seen.append(await names(keys))
    assert seen == [{"1"}, {"1", "2"}, {"2"}, set()]
    await keys.stop()


async def test_a_file_is_not_read_when_it_does_not_change(tmp_path: Path, clock: Clock) -> None:
    """The same set object stays in force however often it is asked for."""
    path = tmp_path / "keys.json"
    put(path, FIRST)
    keys = of_file(path, clock)
    await keys.start()
    first = await keys.current()
    clock.now_s += 100_000  # an unchanged file is not old: it was looked at just now
    assert await keys.current() is first


@pytest.mark.parametrize("broken", [None, b"{", b"{}"], ids=repr)
async def test_a_file_that_breaks_leaves_the_former_set_for_a_while(
    tmp_path: Path, clock: Clock, broken: bytes | None
) -> None:
    """A bad edit is no outage at once; but keys of which nothing is known any more are not trusted for ever."""
    path = tmp_path / "keys.json"
    put(path, FIRST)
    keys = of_file(path, clock)
    await keys.start()
    path.unlink() if broken is None else put(path, broken)
    clock.now_s += 3600
    assert await names(keys) == {"1"}
    clock.now_s += 1
    with pytest.raises(WorldError):
        await keys.current()
    assert keys.latest() is None
    put(path, SECOND)
    assert await names(keys) == {"2"}


async def test_without_a_file_records_wait(tmp_path: Path, clock: Clock) -> None:
    """It may be mounted later: the gate starts, holds its partitions, and goes on by itself."""
    path = tmp_path / "keys.json"
    keys = of_file(path, clock)
    await keys.start()
    with pytest.raises(WorldError, match="VEIL_TOKEN_KEYS") as caught:
        await keys.current()
    assert str(path) not in str(caught.value)
    put(path, FIRST)
    assert await names(keys) == {"1"}


def redirect(to: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": to})

    return handler


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


MISBEHAVING: dict[str, tuple[Handler, str]] = {
    "an error": (answer(500, b""), "HTTP 500"),
    "not found": (answer(404, key_set()), "HTTP 404"),
    "a redirect to itself": (redirect("/other"), "HTTP 302"),
    "a redirect to another host": (redirect("http://localhost:1/"), "HTTP 302"),
    "a page": (answer(200, b"<html>hush</html>"), "no JSON object"),
    "too large": (answer(200, b" " * (SET_BYTES_MAX + 1)), "bytes"),
    "endless": (endless, "bytes"),
    "cut off": (cut, "cannot be fetched"),
    "silence": (hang, "cannot be fetched"),
}


@pytest.mark.parametrize(("handler", "said"), MISBEHAVING.values(), ids=MISBEHAVING)
async def test_a_server_that_misbehaves_holds_records(
    server: Server, clock: Clock, handler: Handler, said: str
) -> None:
    """At start there is no set then; later the former one stays for its time. It is asked once each time, and no other host."""
    server.always = handler
    keys = of_server(server, clock, timeout_s=1.0 if handler is hang else 30.0)
    await keys.start()
    with pytest.raises(WorldError, match=said) as caught:
        await keys.current()
    assert "hush" not in str(caught.value)
    assert server.asked == ["GET /jwks"]
    server.always = answer(200, FIRST)
    clock.now_s += 10
    assert await names(keys) == {"1"}
    server.always = handler
    clock.now_s += 10
    assert set((await keys.refreshed()).keys) == {"1"}
    clock.now_s += 3600
    with pytest.raises(WorldError):
        await keys.current()
    await keys.stop()


async def test_no_server_at_all_holds_records(clock: Clock) -> None:
    """Nobody listens there."""
    keys = FollowedKeys(UrlSource("http://127.0.0.1:1/"), refresh_s=300, interval_s=10, max_age_s=3600, clock=clock)
    await keys.start()
    with pytest.raises(WorldError, match="cannot be fetched"):
        await keys.current()
    await keys.stop()


async def test_a_drip_is_cut_off_at_the_time_limit(server: Server, clock: Clock) -> None:
    """A server that sends a byte now and then holds nobody for longer than the limit."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    server.always = drip
    keys = of_server(server, clock, timeout_s=0.2)
    async with asyncio.timeout(60):
        await keys.start()
    with pytest.raises(WorldError, match="cannot be fetched"):
        await keys.current()
    await keys.stop()


async def test_an_unknown_key_asks_once_more_but_not_too_often(server: Server, clock: Clock) -> None:
    """A new key can be used at once; tokens with invented keys, from all partitions together, cost one question per interval."""
    keys = of_server(server, clock)
    await keys.start()
    server.always = answer(200, BOTH)
    assert set((await keys.refreshed()).keys) == {"1"}  # asked just now
    clock.now_s += 10
    assert [set(found.keys) for found in await asyncio.gather(*(keys.refreshed() for _ in range(50)))] == [
        {"1", "2"}
    ] * 50
    assert len(server.asked) == 2
    server.always = answer(200, SECOND)
    clock.now_s += 9.9
    assert set((await keys.refreshed()).keys) == {"1", "2"}
    clock.now_s += 0.2
    assert set((await keys.refreshed()).keys) == {"2"}
    assert len(server.asked) == 3
    await keys.stop()


async def test_an_unreachable_server_is_not_asked_for_each_held_batch(server: Server, clock: Clock) -> None:
    """A held partition tries again all the time; the server hears of it once an interval."""
    server.always = answer(500, b"")
    keys = of_server(server, clock)
    await keys.start()
    for _ in range(20):
        with pytest.raises(WorldError):
            await keys.current()
    assert len(server.asked) == 1
    await keys.stop()


async def test_a_set_is_fetched_again_in_time_by_itself(server: Server) -> None:
    """Without any record and without a question."""
    source = UrlSource(f"http://127.0.0.1:{server.port}/jwks")
    keys = FollowedKeys(source, refresh_s=0.02, interval_s=0.01, max_age_s=60)
    await keys.start()
    server.always = answer(200, SECOND)
    async with asyncio.timeout(60):
        while (latest := keys.latest()) is None or set(latest.keys) != {"2"}:
            await asyncio.sleep(0.005)
    await keys.stop()


async def test_no_credentials_or_cookies_are_sent(server: Server, clock: Clock) -> None:
    """The question says nothing about who asks."""

    async def baking(_: web.Request) -> web.StreamResponse:
        return web.Response(body=FIRST, headers={"Set-Cookie": "a=b"})

    server.always = baking
    keys = of_server(server, clock)
    await keys.start()
    clock.now_s += 10
    await keys.refreshed()
    assert len(server.headers) == 2
    assert not {"Cookie", "Authorization"} & {name.title() for headers in server.headers for name in headers}
    await keys.stop()
