"""What a payload is bound to: everything that stands beside it and decides what becomes of its text."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veilstream.contracts.bound import NOT_BOUND, NOT_YET, STAGES, beside, bound, canonical, open_record, seal_record
from veilstream.contracts.codec import Codec, own_schemas
from veilstream.contracts.errors import RecordError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import (
    Admitted,
    DeadLetter,
    Envelope,
    Finding,
    Findings,
    Gated,
    Layer,
    PolicyPin,
    Redrive,
    Refusal,
    Sealed,
    Threat,
    TokenUse,
)

KEY, TEXT = bytes(range(32)), b"call Ada at 0301234"
CODEC = Codec()
ORIGIN = Origin("cluster", "veil.requests", 3, 41)
ENVELOPE = Envelope(
    "acme", ORIGIN, 1_700_000_000_000, b"lane", 2, "v" * 64, "r-1", "default", "strict", False, False, False, 19,
    "00-" + "a" * 32 + "-" + "b" * 16 + "-01", 77, TokenUse(b"t" * 32, 1_700_000_300_000), 5, "de",
)  # fmt: skip
PIN = PolicyPin("default", "1.0.0", "ab" * 32, 70)
FOUND = (Finding("EMAIL_ADDRESS", "text", 0, 3, 0.85, "Mail", "r"), Finding("PERSON", "text", 5, 8, 1.0, "Names"))
THREATS = (Threat("injection", "text", 0, 3, 0.5, "rules", "r1"),)
LAYERS = (Layer("llm", "spoke", "openai", "m", "none", 0.9, True), Layer("heuristics", "spoke"))
REFUSALS = (Refusal("a", "b", "tenant", 3),)
RECORDS: dict[str, Any] = {
    "gated": Gated(ENVELOPE, None, REFUSALS),
    "admitted": Admitted(ENVELOPE, None, REFUSALS, PIN),
    "findings": Findings(
        ENVELOPE, None, REFUSALS, PIN, FOUND, THREATS, {"code": "1", "models": "2"}, LAYERS, 0.5, "balanced", "de"
    ),
    "dead letter": DeadLetter(
        "id", ORIGIN, "gate", "code", "why", "record", 5, "d" * 64, 7, replace(ORIGIN, offset=9), 1, "acme", 2
    ),
    "redrive": Redrive(ORIGIN, 2, "v" * 64, "cmd-1", "acme", NOT_YET, 5),
}
"""Every field has another value than its default, so that leaving one out would show."""


def changes(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The value with one thing in it changed, and where."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            for where, other in changes(getattr(value, field.name), f"{path}.{field.name}"):
                yield where, replace(value, **{field.name: other})  # type: ignore[type-var]
    elif isinstance(value, tuple):
        yield path + "[]", ()
        yield path + "[]", (*value, value[-1])
        if len(value) > 1:
            yield path + "[]", value[::-1]
        for n, item in enumerate(value):
            for where, other in changes(item, f"{path}[]"):
                yield where, (*value[:n], other, *value[n + 1 :])
    elif isinstance(value, Mapping):
        yield path, {}
        yield path, dict(list(value.items())[1:])
        yield path, {name: held + "x" for name, held in value.items()}
        yield path, dict(zip(value, reversed(value.values()), strict=True))
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, int):
        yield path, value + 1
        yield path, -value
    elif isinstance(value, float):
        yield path, math.nextafter(value, 2)
        yield path, 0.0
    elif isinstance(value, str | bytes):
        yield path, value + value[:1]
        yield path, value[:0]


def opens(sealed: Any) -> bool:
    try:
        return open_record(sealed, KEY) == TEXT
    except RecordError as error:
        assert error.reason_code == "bad_seal"
        return False


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_whatever_is_changed_beside_a_payload_it_does_not_open(record: Any) -> None:
    """Every field of every record that carries one, and of what stands in it; only the sender's own words may differ."""
    sealed = seal_record(record, KEY, "acme/1", TEXT)
    assert opens(sealed)
    beside_it = replace(sealed, payload=None)
    found = [
        (where, opens(replace(other, payload=sealed.payload)))
        for where, other in changes(beside_it)
        if other != beside_it
    ]
    free = {".envelope.request_id", ".envelope.traceparent"} if hasattr(record, "envelope") else set()
    assert {where for where, opened in found if opened} == free
    top = {where.split(".")[1].removesuffix("[]") for where, _ in found}
    assert top == {field.name for field in dataclasses.fields(record)} - {"payload"}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_what_is_taken_away_is_missed(record: Any) -> None:
    """Whatever may be nothing, in the record and in its envelope."""
    sealed = seal_record(record, KEY, "acme/1", TEXT)
    gone = [replace(sealed, **{name: None}) for name in optional(sealed)]
    if hasattr(sealed, "envelope"):
        envelope = sealed.envelope
        gone += [replace(sealed, envelope=replace(envelope, **{name: None})) for name in optional(envelope)]
    assert gone or isinstance(record, Redrive)
    assert [opens(one) for one in gone] == [False] * len(gone)


def optional(record: Any) -> list[str]:
    """Names of bound fields that may be None."""
    free = NOT_BOUND.get(type(record), ())
    return [f.name for f in dataclasses.fields(record) if "None" in str(f.type) and f.name not in free]


def test_the_fields_that_are_not_bound_are_these() -> None:
    """Whoever adds one here says why in the table of bound.py."""
    assert set(STAGES.values()) == {"gated", "admitted", "findings", "dead-letter", "redrive"}
    named = {f"{cls.__name__}.{name}" for cls, names in NOT_BOUND.items() for name in names}
    assert named - {f"{cls.__name__}.payload" for cls in STAGES} == {"Envelope.request_id", "Envelope.traceparent"}


def test_a_record_without_a_payload_does_not_open() -> None:
    """It says so, and nothing breaks."""
    assert not opens(RECORDS["gated"])
    assert not opens(replace(RECORDS["gated"], payload=Sealed("none", "acme/1", b"", b"")))


@pytest.mark.parametrize("later", STAGES.values())
def test_the_record_s_type_is_its_stage(later: str) -> None:
    """The same envelope and payload as another type of record do not open."""
    sealed = seal_record(Gated(ENVELOPE), KEY, "acme/1", TEXT)
    for cls in (Admitted, Findings):
        assert not opens(cls(ENVELOPE, sealed.payload))
    assert len({bound(record) for record in RECORDS.values()}) == len(RECORDS)


@dataclass(frozen=True)
class FindingOfALaterRelease:
    """What detection might say one day."""

    type: str
    path: str
    start: int
    end: int
    score: float
    source: str
    rule: str = ""
    note: str = ""
    weights: tuple[float, ...] = ()


@pytest.mark.parametrize(("later", "same"), [({}, True), ({"note": "x"}, False), ({"weights": (0.5,)}, False)])
def test_a_field_of_a_later_release_changes_nothing_until_it_is_used(later: dict[str, Any], same: bool) -> None:
    """Agents of two releases open what the other sealed, as long as nobody writes what one of them cannot know."""
    ours = canonical(Finding, FOUND)
    theirs = canonical(
        FindingOfALaterRelease, [FindingOfALaterRelease(**dataclasses.asdict(f), **later) for f in FOUND]
    )
    assert (ours == theirs) is same


def test_defaults_are_the_same_in_schemas_and_records() -> None:
    """A field that an older writer lacks is read with the schema's default: it must be the one that is left out here."""
    for cls in (*STAGES, Envelope, Origin, PolicyPin, Finding, Threat, Layer, Refusal, TokenUse):
        for entry in own_schemas()[f"veil.{cls.__name__}"].parsed["fields"]:
            field = next(f for f in dataclasses.fields(cls) if f.name == entry["name"])
            if "default" in entry:
                made = field.default_factory() if callable(field.default_factory) else field.default
                assert (list(made) if isinstance(made, tuple) else made) == entry["default"], entry["name"]


def test_the_canonical_form_is_this_one() -> None:
    """Whoever changes it makes every record under way, and every dead letter, unreadable."""
    record = Findings(
        Envelope("acme", ORIGIN, 5, b"\x01\xff", request_id="r", token=TokenUse(b"t", 9)), None, (), PIN, (FOUND[1],),
        (), {"b": "2", "a": "1"},
    )  # fmt: skip
    origin = {"cluster": ["cluster"], "offset": [41], "partition": [3], "topic": ["veil.requests"]}
    assert json.loads(canonical(Findings, [record])) == {
        "envelope": {
            "lane": ["01ff"], "origin": origin, "received_ms": [5], "tenant": ["acme"],
            "token": [[True], {"expires_ms": [9], "id": ["74"]}],
        },
        "findings": [[1], {
            "end": [8], "path": ["text"], "score": "3ff0000000000000", "source": ["Names"], "start": [5], "type": ["PERSON"],
        }],
        "lineage": [{"a": "1", "b": "2"}],
        "policy": [[True], {
            "digest": ["ab" * 32], "policy": ["default"], "state_offset": [70], "version": ["1.0.0"],
        }],
    }  # fmt: skip
    assert beside(record).hex() == "af20c7dbc199160d60f9829fd634d3d01238623207a4a3436d4c76741a260897"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
FINDINGS = st.lists(
    st.builds(
        Finding, TEXTS, TEXTS, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1),
        st.one_of(st.floats(), st.integers(0, 1)), TEXTS, TEXTS,
    ),
    max_size=4,
).map(tuple)  # fmt: skip


@given(FINDINGS, FINDINGS, st.dictionaries(TEXTS, TEXTS, max_size=3), st.integers(-(2**63), 2**63 - 1))
def test_it_opens_after_any_way_through_bytes_and_for_equal_records_alone(
    found: tuple[Finding, ...], others: tuple[Finding, ...], lineage: dict[str, str], at_ms: int
) -> None:
    """Any text, any number, whole numbers where the schema has floating-point ones."""
    envelope = replace(ENVELOPE, received_ms=at_ms)
    sealed = seal_record(Findings(envelope, None, (), PIN, found, (), lineage), KEY, "acme/1", TEXT)
    assert opens(CODEC.decode(Findings, CODEC.encode(sealed)))
    same = CODEC.encode(replace(sealed, findings=others)) == CODEC.encode(sealed)
    assert opens(replace(sealed, findings=others)) is same
