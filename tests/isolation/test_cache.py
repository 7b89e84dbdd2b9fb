"""Doors of the result cache: another tenant's answers, answers put in others' places, and Redis itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.observer import WAIT_S
from tests.isolation.rig import Rig
from tests.isolation.shots import plain
from veilstream.cache.actor_log import PREFIX as LIMITS
from veilstream.cache.answers import PREFIX
from veilstream.contracts.records import Verdict
from veilstream.contracts.step import CACHED

MAIL = "Write to ada.lovelace@example.com today"
"""A text in which something is found."""
NAME = "Araminta Featherstone"


def client(rig: Rig) -> redis.Redis:
    """Redis as its administrator: who has got hold of it."""
    return rig.once("redis", lambda: redis.Redis.from_url(rig.redis))


def kept(rig: Rig) -> set[bytes]:
    """Keys of all answers."""
    return {key for key in client(rig).keys(f"{PREFIX}*") if not key.endswith(b"probe")}


def sent(rig: Rig, tenant: str, text: str, **more: Any) -> tuple[Verdict, bool]:
    """The verdict of a record, and whether it says that its answer was kept."""
    origin = rig.ask(plain(tenant, text, **more.pop("fields", {})), **more)
    verdict = rig.observer.outcome(origin)
    assert isinstance(verdict, Verdict), verdict.code
    (seen,) = rig.observer.find(Verdict, lambda one: one.origin == origin)
    return verdict, dict(seen.headers)[CACHED] == b"true"


def found(verdict: Verdict) -> list[str]:
    return [finding.type for finding in verdict.findings]


def stored(rig: Rig, tenant: str, text: str) -> bytes:
    """A text is judged for the first time; the key that its answer is kept under."""
    before = kept(rig)
    _, cached = sent(rig, tenant, text)
    assert not cached, "a new text was no new one"
    deadline = time.monotonic() + WAIT_S
    while not (new := kept(rig) - before):
        assert time.monotonic() < deadline, "nothing was kept"
        time.sleep(0.02)
    (key,) = new
    return key


def unique(text: str) -> str:
    """A text that no other door has sent."""
    return f"{text} ({os.urandom(6).hex()})"


def is_used(rig: Rig) -> None:
    """The control: the same tenant gets its own answer again, and what it says is right."""
    for tenant in ("aaa", "bbb"):
        text = unique(MAIL)
        stored(rig, tenant, text)
        verdict, cached = sent(rig, tenant, text)
        assert (cached, "EMAIL_ADDRESS" in found(verdict)) == (True, True)


def same_text(rig: Rig) -> str:
    """bbb sends what aaa has sent: were it answered from aaa's, bbb would learn that aaa had sent it."""
    text = unique(MAIL)
    stored(rig, "aaa", text)
    if sent(rig, "bbb", text)[1]:
        raise Crossed("bbb is answered from what aaa has sent")
    return "looked at anew"


def put_under(value: Callable[[Rig, bytes], bytes], tenant: str, rig: Rig) -> str:
    """Something else stands under the name of the tenant's text, in which something is to be found."""
    text = unique(MAIL)
    key = stored(rig, tenant, text)
    client(rig).set(key, value(rig, key), keepttl=True)
    verdict, cached = sent(rig, tenant, text)
    if cached or "EMAIL_ADDRESS" not in found(verdict):
        raise Crossed("what was put there was taken for the answer")
    return "a miss"


def nothing_found(tenant: str, rig: Rig, _: bytes) -> bytes:
    """A tenant's answer to a harmless text."""
    return client(rig).get(stored(rig, tenant, unique("A harmless text"))) or b""


def changed(place: int, rig: Rig, key: bytes) -> bytes:
    raw = bytearray(client(rig).get(key) or b"")
    raw[place] ^= 1
    return bytes(raw)


VALUES: dict[str, Callable[[Rig, bytes], bytes]] = {
    "another tenant's answer that nothing was found": partial(nothing_found, "aaa"),
    "the same tenant's answer to another text": partial(nothing_found, "bbb"),
    "an answer whose first byte was changed": partial(changed, 0),
    "an answer whose nonce was changed": partial(changed, 5),
    "an answer whose text was changed": partial(changed, 40),
    "an answer whose seal was changed": partial(changed, -1),
    "an empty value": lambda *_: b"",
    "garbage": lambda *_: os.urandom(300),
    "an answer in the clear": lambda *_: b'{"until": 99999999999999, "findings": [[], []], "threats": [[], []]}',
}


@pytest.mark.parametrize("what", VALUES)
def test_what_is_put_in_an_answers_place_is_no_answer(what: str, rig: Rig, tally: Tally) -> None:
    """Whoever writes to Redis decides no verdict: what stands there opens under its own name alone."""
    tally.shut(
        Door("cache", f"{what} under the name of bbb's text", partial(put_under, VALUES[what], "bbb"), is_used), rig
    )


def test_a_tenant_is_not_answered_from_anothers(rig: Rig, tally: Tally) -> None:
    """The same text of two tenants has two names."""
    tally.shut(Door("cache", "a text that aaa has sent, sent by bbb", same_text, is_used), rig)


def after_purge(rig: Rig) -> str:
    """An answer of before, put under the name of after."""
    text = unique(MAIL)
    old = client(rig).get(stored(rig, "ccc", text)) or b""
    rig.done("cache.purge", tenant="ccc")
    key = stored(rig, "ccc", text)
    client(rig).set(key, old, keepttl=True)
    if sent(rig, "ccc", text)[1]:
        raise Crossed("an answer of before the purge was given")
    return "a miss"


def test_an_answer_of_before_a_purge_is_none(rig: Rig, tally: Tally) -> None:
    """Also where somebody has kept it elsewhere."""
    tally.shut(Door("cache", "an answer of before a purge put back", after_purge, is_used), rig)


def says_so_itself(rig: Rig) -> str:
    """A client's own header."""
    if sent(rig, "aaa", unique(MAIL), headers=[(CACHED, b"true")])[1]:
        raise Crossed("the verdict says what the client said")
    return "stripped at the gate"


def test_a_client_does_not_say_that_its_answer_was_kept(rig: Rig, tally: Tally) -> None:
    """The verdict's header is detection's."""
    tally.shut(Door("cache", f"a header {CACHED} from outside", says_so_itself, is_used), rig)


def in_the_clear(rig: Rig) -> str:
    """A text with a name in it, of each tenant, and Redis as a whole."""
    for tenant in ("aaa", "bbb"):
        stored(rig, tenant, unique(f"{NAME} wrote {MAIL}"))
    held = [part for key in client(rig).keys("*") for part in (key, client(rig).dump(key) or b"")]
    files = [path.read_bytes() for path in (rig.folder / "redis").rglob("*") if path.is_file()]
    for word in (NAME, "lovelace", "EMAIL_ADDRESS", "aaa/1", "text"):
        if any(word.encode() in part for part in (*held, *files)):
            raise Crossed(f"{word} stands in Redis")
    return "sealed"


def test_redis_holds_nothing_to_read(rig: Rig, tally: Tally) -> None:
    """No text, no type of a finding, no tenant; not in its file either."""
    tally.shut(Door("cache", "Redis read as a whole", in_the_clear, is_used), rig)


def may(rig: Rig) -> None:
    """Detection's user may ask for answers, the gate's for its counts."""
    with redis.Redis.from_url(rig.redis_of("detection")) as one, redis.Redis.from_url(rig.redis_of("gate")) as other:
        assert one.mget([f"{PREFIX}x"]) == [None]
        assert other.zcount(f"{LIMITS}x", 0, 1) == 0


ASKED = {
    "detection": [["MGET", f"{LIMITS}x"], ["SET", f"{LIMITS}x", "1"], ["SET", "vault:x", "1"], ["KEYS", "*"], ["SCAN", "0"],
                  ["FLUSHALL"], ["CONFIG", "GET", "*"], ["MONITOR"], ["ACL", "LIST"], ["EVAL", "return 1", "0"]],
    "gate": [["GET", f"{PREFIX}x"], ["MGET", f"{PREFIX}x"], ["SET", f"{PREFIX}x", "1"], ["DUMP", f"{PREFIX}x"],
             ["ZADD", f"{PREFIX}x", "1", "a"], ["EVALSHA", "0" * 40, "1", f"{PREFIX}x"]],
    "nobody": [["GET", f"{PREFIX}x"], ["PING"]],
}  # fmt: skip


def refused(role: str, words: list[str], rig: Rig) -> str:
    """By Redis' own access control."""
    url = rig.redis_of(role) if role != "nobody" else f"redis://{rig.redis.rpartition('@')[2]}"
    try:
        with redis.Redis.from_url(url) as one:
            one.execute_command(*words)
    except (redis.exceptions.NoPermissionError, redis.exceptions.AuthenticationError) as exc:
        return type(exc).__name__
    raise Crossed(f"{role} may {words[0]}")


@pytest.mark.parametrize(("role", "words"), [(role, words) for role, rows in ASKED.items() for words in rows], ids=str)
def test_a_redis_user_does_no_more_than_its_agent(role: str, words: list[str], rig: Rig, tally: Tally) -> None:
    """A stolen password of one agent's Redis user opens nothing of another's."""
    tally.shut(Door("cache", f"{role} at Redis: {' '.join(words)}", partial(refused, role, words), may), rig)
