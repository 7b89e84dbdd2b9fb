"""Names, seals and lifetimes of kept answers: the right answer to a request, or none."""

from __future__ import annotations

import dataclasses
import sys
import tracemalloc
from dataclasses import replace
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veilstream.cache.memory import OVERHEAD_BYTES, MemoryAnswers
from veilstream.contracts.content import TextField
from veilstream.contracts.records import Finding, Sealed, Threat
from veilstream.contracts.sealing import AES_GCM, NONCE_BYTES, unseal
from veilstream.detection.cache import entry
from veilstream.detection.cache.entry import (
    Named,
    Scope,
    Unusable,
    confidence,
    keep,
    lifetime_s,
    lineage_digest,
    named,
    open_kept,
)
from veilstream.detection.model import Detection, DetectionConfig, DetectionRequest, OwnRules, Profile
from veilstream.keys.derived import derive

KEYS = derive(b"r" * 32, "acme/1", 1)
SCOPE = Scope("acme", "p" * 64, -1, KEYS.key_id, KEYS.cache)
LINEAGE = lineage_digest({"models": "m1", "rules": "r1"})
SECRET = "Zebediah Quackenbush"
REQUEST = DetectionRequest(
    (TextField(f"document.{SECRET}", f"{SECRET} says", "user"), TextField("document.b", "4111")), DetectionConfig()
)
FOUND = Detection(
    (Finding("PERSON", f"document.{SECRET}", 0, 20, 0.85, "spacy"),),
    (Threat("override", "document.b", 0, 4, 0.97, "rules", "r-1"),),
    "de",
)


def a_name(request: DetectionRequest = REQUEST, scope: Scope = SCOPE, lineage: bytes = LINEAGE) -> Named:
    return named(scope, lineage, request)


CONFIGS: dict[str, Any] = {
    "language": "de", "entities": (), "threats": False, "format_check": False,
    "profile": "fast", "own": OwnRules("d" * 64, b"{}"),
}  # fmt: skip
FIELDS = {"path": "text", "text": "another", "role": "system"}
SCOPES = {"tenant": "bbb", "policy": "q" * 64, "generation": 3, "key_id": "acme/2", "key": b"k" * 32}


def test_the_tables_below_have_every_field() -> None:
    """A later release's field must be asked about, too."""
    assert CONFIGS.keys() == {one.name for one in dataclasses.fields(DetectionConfig)}
    assert FIELDS.keys() == {one.name for one in dataclasses.fields(TextField)}
    assert SCOPES.keys() == {one.name for one in dataclasses.fields(Scope)}
    assert {one.name for one in dataclasses.fields(DetectionRequest)} == {"fields", "config"}
    assert CONFIGS["profile"] in get_args(Profile)


def test_each_thing_an_answer_depends_on_changes_the_name() -> None:
    """And nothing else does: the same request has the same name, whoever asks."""
    others = [replace(REQUEST, config=replace(REQUEST.config, **{name: value})) for name, value in CONFIGS.items()]
    others += [
        replace(REQUEST, fields=(replace(REQUEST.fields[0], **{name: value}), REQUEST.fields[1]))
        for name, value in FIELDS.items()
    ]
    others += [
        replace(REQUEST, fields=REQUEST.fields[::-1]),
        replace(REQUEST, fields=REQUEST.fields[:1]),
        replace(REQUEST, fields=(TextField("a", "b"), TextField("c", "d"))),
        replace(REQUEST, fields=(TextField("a", 'b"],["c'), TextField("d", ""))),
        replace(REQUEST, config=replace(REQUEST.config, entities=("A", "B"))),
        replace(REQUEST, config=replace(REQUEST.config, entities=("A,B",))),
        replace(REQUEST, config=replace(REQUEST.config, own=OwnRules("e" * 64, b"{}"))),
    ]
    names = [a_name(), *map(a_name, others)]
    names += [a_name(scope=replace(SCOPE, **{name: value})) for name, value in SCOPES.items()]
    names += [a_name(lineage=lineage_digest(parts)) for parts in ({"models": "m1"}, {"models": "m1r", "rules": "1"})]
    assert len({one.name for one in names}) == len(names)
    again = DetectionRequest(tuple(map(replace, REQUEST.fields)), replace(REQUEST.config))
    assert a_name(again) == a_name()
    same_rules = [replace(REQUEST, config=DetectionConfig(own=OwnRules("d" * 64, raw))) for raw in (b"{}", b"{ }")]
    assert a_name(same_rules[0]).name == a_name(same_rules[1]).name


def test_a_text_that_cannot_be_written_down_has_no_name() -> None:
    """A lone surrogate, which the gate refuses: it is looked at, and nothing is kept."""
    with pytest.raises(Unusable):
        a_name(replace(REQUEST, fields=(TextField("text", "\ud800"),)))


@pytest.mark.parametrize(
    ("scores", "threats", "sure", "seconds"),
    [
        ((), (), 1.0, 1800),
        ((0.95,), (), 0.95, 1800),
        ((0.949,), (), 0.949, 900),
        ((1.0,), (0.8,), 0.8, 900),
        ((0.85, 0.7999), (0.99,), 0.7999, 300),
        ((), (0.0,), 0.0, 300),
    ],
)
def test_a_surer_answer_is_kept_for_longer(
    scores: tuple[float, ...], threats: tuple[float, ...], sure: float, seconds: int
) -> None:
    """An answer is as sure as the least sure thing in it; one in which nothing was found is sure."""
    found = Detection(
        tuple(Finding("X", "text", 0, 1, score, "s") for score in scores),
        tuple(Threat("x", "text", 0, 1, score, "s") for score in threats),
    )
    assert (confidence(found), lifetime_s(found)) == (sure, seconds)


SPANS = st.tuples(
    st.sampled_from(["document.b", f"document.{SECRET}"]), st.integers(0, 1 << 20), st.integers(0, 1 << 20)
)
WORDS = st.text(max_size=20).filter(lambda word: word.isprintable())
SCORES = st.floats(0, 1)


@given(
    st.lists(st.builds(lambda w, p, s, r: Finding(w, *p, s, w, r), WORDS, SPANS, SCORES, WORDS), max_size=20),
    st.lists(st.builds(lambda w, p, s, r: Threat(w, *p, s, w, r), WORDS, SPANS, SCORES, WORDS), max_size=20),
)
def test_what_is_kept_opens_as_it_was(findings: list[Finding], threats: list[Threat]) -> None:
    """To the last digit of every score; with the time until when."""
    found = Detection(tuple(findings), tuple(threats))
    kept = open_kept(a_name(), keep(a_name(), found, 5_000))
    assert kept.detection == found
    assert kept.until_ms == 5_000 + lifetime_s(found) * 1000


def test_neither_text_nor_path_is_kept() -> None:
    """Not even under the seal: the number of a field stands for its path."""
    raw = keep(a_name(), FOUND, 0)
    one = a_name()
    plain = unseal(
        KEYS.cache, Sealed(AES_GCM, KEYS.key_id, raw[1 : 1 + NONCE_BYTES], raw[1 + NONCE_BYTES :]), entry._bound(one)
    )
    assert b"PERSON" in plain
    for secret in (SECRET, "document", "4111", "acme"):
        assert secret.encode() not in plain
        assert secret.encode() not in raw + one.name
    nothing, one_finding = keep(a_name(), Detection((), ()), 0), keep(a_name(), replace(FOUND, threats=()), 0)
    assert len(nothing) == len(one_finding)


def test_a_finding_in_no_field_of_the_request_is_not_kept() -> None:
    """Nobody could say where it is."""
    with pytest.raises(Unusable):
        keep(a_name(), Detection((Finding("X", "elsewhere", 0, 1, 1.0, "s"),), ()), 0)


MOVED = {
    **{f"another {name}": replace(SCOPE, **{name: value}) for name, value in SCOPES.items()},
    "the same": SCOPE,
}


@pytest.mark.parametrize("scope", MOVED.values(), ids=MOVED)
def test_what_is_moved_under_another_name_does_not_open(scope: Scope) -> None:
    """Another tenant's, policy's, purge's, key's: each is no answer; the control opens."""
    raw = keep(a_name(), FOUND, 0)
    if scope == SCOPE:
        assert open_kept(a_name(scope=scope), raw).detection == FOUND
        return
    with pytest.raises(Unusable):
        open_kept(a_name(scope=scope), raw)
    with pytest.raises(Unusable):  # even if the name were the same
        open_kept(replace(a_name(scope=scope), name=a_name().name), raw)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x01", b"\x02" * 400, b"\x01" * 13, b"\x01" * 400, b"nonsense", b"\x01" + bytes(28), None],
)
def test_garbage_is_no_answer(garbage: bytes | None) -> None:
    """Of any length; None: the answer to another text of the same tenant."""
    other = replace(REQUEST, fields=(TextField("text", "harmless"),))
    raw = keep(a_name(other), Detection((), ()), 0) if garbage is None else garbage
    with pytest.raises(Unusable):
        open_kept(a_name(), raw)


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    """Anywhere: in the form, the nonce, the text, the tag."""
    raw = bytearray(keep(a_name(), FOUND, 0))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unusable):
        open_kept(a_name(), bytes(raw))


def test_what_a_release_with_other_fields_kept_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One field more, and one less."""
    for change in (lambda names: (*names, "later"), lambda names: names[:-1]):
        real = orjson.dumps

        def written(plain: Any, change: Any = change, real: Any = real) -> bytes:
            if isinstance(plain, dict):
                plain = plain | {"findings": [change(plain["findings"][0]), []]}
            return real(plain)

        monkeypatch.setattr(entry.orjson, "dumps", written)
        raw = keep(a_name(), Detection((), ()), 0)
        monkeypatch.undo()
        with pytest.raises(Unusable):
            open_kept(a_name(), raw)


def test_memory_is_bounded_by_bytes_and_lets_the_oldest_go() -> None:
    """What was asked for lately stays; what is too old is gone; what is too large, or kept for no time, never comes in."""
    now = [0.0]
    size = sys.getsizeof(b"x" * 400) + OVERHEAD_BYTES
    memory = MemoryAnswers(20 * size, clock=lambda: now[0])
    for number in range(20):
        memory.put(b"%d" % number, b"x" * 400, 100)
    assert memory.get(b"0") is not None
    memory.put(b"20", b"x" * 400, 50)
    assert (memory.get(b"0"), memory.get(b"1"), len(memory)) == (b"x" * 400, None, 20)
    memory.put(b"large", b"x" * (2 * size), 100)
    memory.put(b"late", b"x", 0)
    assert memory.get(b"large") is memory.get(b"late") is None
    now[0] = 50
    assert memory.get(b"20") is None
    memory.forget(b"20")
    memory.forget(b"0")
    memory.forget(b"0")
    assert (memory.get(b"0"), memory.get(b"2")) == (None, b"x" * 400)
    now[0] = 100
    assert memory.get(b"2") is None
    MemoryAnswers(0).put(b"a", b"b", 100)


def test_memory_takes_no_more_than_it_says() -> None:
    """Measured: entries as they are, written over and over."""
    memory = MemoryAnswers(4 << 20)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(20_000):
        memory.put(number.to_bytes(32, "big"), number.to_bytes(320, "big"), 1800)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(memory) > 3_000
    assert taken < 4 << 20
