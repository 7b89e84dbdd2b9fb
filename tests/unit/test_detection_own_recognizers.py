"""A tenant's own recognizers: they find what Presidio's ad-hoc recognizers find, in any script, and no text stalls them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from presidio_analyzer import Pattern, PatternRecognizer

from veilstream.anonymize.actions import HashKey
from veilstream.anonymize.apply import anonymize
from veilstream.contracts.errors import RecordError, TenantError
from veilstream.contracts.records import Content
from veilstream.detection import engine
from veilstream.detection.model import DetectionConfig, DetectionRequest, Finding, OwnRules, TextField
from veilstream.detection.pii.own import FINDINGS_MAX, OwnCache
from veilstream.policy.document import parse_policy
from veilstream.verdicts.decide import decide

EMPLOYEE = {
    "name": "employee number", "entity": "EMPLOYEE_ID",
    "patterns": [{"name": "prefix and digits", "regex": r"\bEMP-\d{6}\b"}],
    "context": ["badge", "employee"],
}  # fmt: skip
PROJECTS = {
    "name": "projects", "entity": "PROJECT",
    "deny_list": ["Falcon", "Blue Moon", "Müller & Söhne", "田中", "C++", "Straße 7"],
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    engine.load(None)


def rules(*recognizers: dict[str, Any], allow_list: Any = ()) -> OwnRules:
    detection = {"recognizers": list(recognizers), "allow_list": list(allow_list)}
    own = parse_policy({"id": "p", "version": "1.0.0", "detection": detection}).own_rules
    assert own is not None
    return OwnRules(*own)


def find(text: str, own: OwnRules, **config: Any) -> tuple[Finding, ...]:
    asked = DetectionConfig(own=own, threats=False, format_check=False, **config)
    return engine.detect([DetectionRequest((TextField("text", text),), asked)])[0].findings


def values(text: str, *recognizers: dict[str, Any], profile: str = "fast") -> list[str]:
    own = rules(*recognizers)
    entities = tuple(sorted({one["entity"] for one in recognizers}))
    return [text[f.start : f.end] for f in find(text, own, entities=entities, profile=profile)]


@pytest.mark.parametrize("profile", ["parity", "fast"])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("see EMP-123456.", [("EMP-123456", 0.5)], id="no context"),
        pytest.param("his badge is EMP-123456", [("EMP-123456", 0.85)], id="context before"),
        pytest.param("emp-123456", [("emp-123456", 0.5)], id="other case"),
        pytest.param("TEMP-123456 EMP-12345 EMP-1234567", [], id="near misses"),
        pytest.param("𝔘𝔫𝔦 🙂 ä EMP-123456 🙂 EMP-654321", [("EMP-123456", 0.5), ("EMP-654321", 0.5)], id="astral"),
        pytest.param("", [], id="empty"),
        pytest.param("E", [], id="one character"),
    ],
)
def test_patterns_find_their_values_in_every_profile(text: str, found: list[Any], profile: str) -> None:
    """Places are code points, context raises the score, and the finding names recognizer and rule."""
    findings = find(text, rules(EMPLOYEE), profile=profile, entities=("EMPLOYEE_ID",))
    assert [(text[f.start : f.end], f.score) for f in findings] == found
    assert {(f.type, f.source, f.rule) for f in findings} <= {("EMPLOYEE_ID", "employee number", "prefix and digits")}


TEXTS = [
    "The employee with badge EMP-123456 wrote ann@example.com; EMP-1 EMP-000000x",
    "EMP-111111\nEMP-222222 employees: EMP-333333, and 4111 1111 1111 1111",
    "ä𝔘\u0301é EMP-444444 𐍈 badge 5 6 7 8 EMP-555555",
    "no such number; Ann Miller of Springfield paid on 3 May 2021",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("regex", [r"\bEMP-\d{6}\b", r"^EMP-\d+", r"EMP-.*6", r"(?:EMP|badge)[ -]?\d*", r"\d{6}$"])
def test_own_patterns_are_presidios_ad_hoc_recognizers(text: str, regex: str) -> None:
    """All findings, own and Presidio's, equal those of Presidio with the same pattern as an ad-hoc recognizer."""
    ad_hoc = PatternRecognizer(
        "EMPLOYEE_ID", name="own", patterns=[Pattern("p", regex, 0.5)], context=["badge", "employee"]
    )
    analyzer = engine._loaded().pii.analyzer
    expected = analyzer.analyze(text, "en", ad_hoc_recognizers=[ad_hoc])
    own = rules(
        {
            "name": "own", "entity": "EMPLOYEE_ID", "context": ["badge", "employee"],
            "patterns": [{"name": "p", "regex": regex}],
        }
    )  # fmt: skip
    found = find(text, own)
    assert sorted((f.type, f.start, f.end, f.score) for f in found) == sorted(
        (r.entity_type, r.start, r.end, r.score) for r in expected
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("falcon and FALCON", ["falcon", "FALCON"], id="any case"),
        pytest.param("Falcons, aFalcon, Falcon_2", [], id="part of a word"),
        pytest.param("(Falcon)", ["Falcon"], id="beside punctuation"),
        pytest.param("blue \n moon, Blue, Moon, bluemoon", ["blue \n moon"], id="blanks between words"),
        pytest.param("bei MÜLLER & SÖHNE", ["MÜLLER & SÖHNE"], id="umlauts"),
        pytest.param("Mu\u0308ller & So\u0308hne", ["Mu\u0308ller & So\u0308hne"], id="combining marks"),
        pytest.param("Fal\u200bcon Fal\u00adcon", ["Fal\u200bcon", "Fal\u00adcon"], id="invisible characters"),
        pytest.param("Ｆａｌｃｏｎ", ["Ｆａｌｃｏｎ"], id="full width"),
        pytest.param("田中さんは", ["田中"], id="no blanks between words"),
        pytest.param("田原中 中田", [], id="other ideographs"),
        pytest.param("I write C++.", ["C++"], id="punctuation in it"),
        pytest.param("STRASSE 7", ["STRASSE 7"], id="folded sharp s"),
        pytest.param("🙂𝔘 Falcon", ["Falcon"], id="after astral characters"),
    ],
)
def test_deny_lists_find_whole_words(text: str, found: list[str]) -> None:
    """Case, forms of Unicode and invisible characters hide no word; parts of words are not found."""
    assert values(text, PROJECTS) == found


def test_case_counts_where_the_recognizer_says_so() -> None:
    """For its words and for its patterns."""
    strict = {**PROJECTS, "case_sensitive": True, "patterns": [{"name": "x", "regex": "X[0-9]"}]}
    assert values("Falcon falcon X1 x1", strict) == ["Falcon", "X1"]


def test_allowed_values_are_no_findings_of_their_entities() -> None:
    """The exact value, of the named entities alone."""
    allow = [{"entities": ["EMPLOYEE_ID"], "values": ["EMP-000000", "ann@example.com"]}]
    text = "EMP-000000 emp-000000 EMP-000001 ann@example.com"
    own = rules(EMPLOYEE, allow_list=allow)
    found = find(text, own, profile="fast", entities=("EMAIL_ADDRESS", "EMPLOYEE_ID"))
    assert sorted(text[f.start : f.end] for f in found) == ["EMP-000001", "ann@example.com", "emp-000000"]


def test_only_entities_asked_for_are_looked_for() -> None:
    """Own ones like the engine's; an entity that nobody finds still refuses the record."""
    own = rules(EMPLOYEE, PROJECTS)
    text = "EMP-123456 Falcon ann@example.com"
    assert [f.type for f in find(text, own, entities=("PROJECT",))] == ["PROJECT"]
    assert [f.type for f in find(text, own, entities=("EMAIL_ADDRESS",))] == ["EMAIL_ADDRESS"]
    assert {"EMPLOYEE_ID", "PROJECT", "EMAIL_ADDRESS"} <= {f.type for f in find(text, own)}
    with pytest.raises(TenantError, match="which no recognizer"):
        find(text, own, entities=("PROJECT", "NOBODYS"))


def test_an_own_recognizer_may_find_an_entity_of_the_engine() -> None:
    """Also where the profile itself cannot find it."""
    names = {"name": "staff", "entity": "PERSON", "deny_list": ["Zyx Wvu"]}
    assert values("ask Zyx Wvu", names, profile="fast") == ["Zyx Wvu"]


def test_fields_and_texts_of_a_batch_do_not_meet() -> None:
    """Each field has its own findings, whatever stands in the others; 200 fields, some empty, some of one character."""
    texts = [("", "x", "EMP-123456", f"see EMP-{n:06}")[n % 4] for n in range(200)]
    config = DetectionConfig(own=rules(EMPLOYEE), entities=("EMPLOYEE_ID",), profile="fast")
    fields = tuple(TextField(f"f{n}", text) for n, text in enumerate(texts))
    found = engine.detect([DetectionRequest(fields, config)])[0].findings
    assert [(f.path, f.start, f.end) for f in found] == [
        (f"f{n}", text.index("EMP"), len(text)) for n, text in enumerate(texts) if "EMP" in text
    ]


def test_in_a_long_text_no_value_is_lost() -> None:
    """100,000 characters are one text: values stand at every distance from its ends, and none is cut."""
    piece = "ä𝔘 badge EMP-123456, Falcon;"
    text = "".join(piece + "." * (number % 7) for number in range(100_000 // 35))
    text += "x" * (100_000 - len(text) - 11) + " EMP-654321"
    starts = [place for place in range(len(text)) if text.startswith(("EMP-", "Falcon"), place)]
    found = find(text, rules(EMPLOYEE, PROJECTS), profile="fast", entities=("EMPLOYEE_ID", "PROJECT"))
    assert len(text) == 100_000
    assert sorted(f.start for f in found) == starts
    assert {text[f.start : f.end] for f in found} == {"EMP-123456", "Falcon", "EMP-654321"}


@pytest.mark.parametrize(
    ("regex", "text"),
    [
        pytest.param(r"(x+x+)+y", "x" * 100_000, id="nested counts"),
        pytest.param(r"^(?:[a-zA-Z0-9]+\s?)+$", "a1 " * 33_333 + "!", id="a list of words"),
        pytest.param(r"(?:a|a)*b", "a" * 100_000, id="the same twice"),
        pytest.param(r"(.*,){11}P", "1," * 50_000, id="eleven greedy fields"),
        pytest.param(r"(?:a|b)*a(?:a|b){30}c", "abbab" * 20_000, id="more states than memory"),
    ],
)
def test_what_backtracks_for_minutes_is_answered(regex: str, text: str) -> None:
    """100,000 characters in seconds, under load too; Python's `re` would not end."""
    own = {"name": "evil", "entity": "EVIL", "patterns": [{"name": "p", "regex": regex}]}
    began = time.monotonic()
    assert values(text, own) == []
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("regex", "reason"),
    [(r"[a-z]+\d|a", "too much work"), (r"a*b|a", "too much work"), (".", "more than 10000 values")],
)
def test_what_matches_everywhere_refuses_the_record_in_time(regex: str, reason: str) -> None:
    """A search to the end of the text for each of its characters is too much even for RE2: refused, by count, not by time."""
    own = {"name": "evil", "entity": "EVIL", "patterns": [{"name": "p", "regex": regex}]}
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(RecordError, match=reason) as refused:
            values("a" * 100_000, own)
        assert refused.value.reason_code == "pattern_timeout"
        assert "aaa" not in str(refused.value)
    assert time.monotonic() - began < 60
    assert values("a" * 100, own) == ["a"] * 100


def test_a_policys_actions_hold_for_its_own_entities() -> None:
    """From the policy through detection to the safe text, with score threshold, block and review."""
    policy = parse_policy(
        {
            "id": "p", "version": "1.0.0",
            "detection": {"profile": "fast", "recognizers": [EMPLOYEE, PROJECTS], "score_threshold": 0.6},
            "actions": {"EMPLOYEE_ID": {"action": "mask", "keep_last": 2}, "PROJECT": "replace"},
            "decision": {"block_entities": ["PROJECT"]},
        }
    )  # fmt: skip
    assert policy.own_rules is not None
    text = "badge EMP-123456 works on 𝔘 falcon. . . . . . . Then came EMP-654321"
    found = find(text, OwnRules(*policy.own_rules), profile="fast")
    safe = anonymize(Content(text=text), found, policy, HashKey(b"k" * 32, 1))
    assert safe.content.text == "badge ********56 works on 𝔘 <PROJECT>. . . . . . . Then came EMP-654321"
    assert [(f.type, f.action) for f in safe.findings if f.score >= 0.5] == [
        ("EMPLOYEE_ID", "mask"), ("PROJECT", "replace"), ("EMPLOYEE_ID", "preserve"),
    ]  # fmt: skip
    assert decide(found, (), policy, None).decision == "block"


def test_too_many_findings_refuse_the_record_and_only_that() -> None:
    """Of a deny list too; the next text has its own count."""
    own = {"name": "words", "entity": "WORD", "deny_list": ["a"]}
    with pytest.raises(RecordError, match="more than 10000 values"):
        values("a " * (FINDINGS_MAX + 1), own)
    half = "a " * (FINDINGS_MAX // 2 + 1)
    assert [len(values(half, own)) for _ in range(2)] == [FINDINGS_MAX // 2 + 1] * 2


def test_thousands_of_words_cost_what_one_costs() -> None:
    """A look-up for each word of the text, however long the list is."""
    text = "the quick brown fox jumps over the lazy dog " * 200

    def seconds(count: int) -> float:
        own = rules({"name": "words", "entity": "WORD", "deny_list": [f"w{n}x" for n in range(count)]})
        find(text, own, entities=("WORD",), profile="fast")
        times = []
        for _ in range(5):
            began = time.perf_counter()
            find(text, own, entities=("WORD",), profile="fast")
            times.append(time.perf_counter() - began)
        return min(times)

    assert seconds(10_000) < 10 * seconds(1) + 0.01


def test_compiled_rules_are_kept_within_a_bound() -> None:
    """The same rules are compiled once; the least used leave first; one that is too large is kept while it is the last."""
    cache = OwnCache(bytes_max=3 << 20)
    made = [rules({**EMPLOYEE, "name": f"n{number}"}) for number in range(4)]
    first = cache.of(made[0])
    assert cache.of(made[0]) is first
    for one in (made[1], made[0], made[2]):
        cache.of(one)
    assert len(cache) == 2
    assert cache.of(made[0]) is first
    tight = OwnCache(bytes_max=0)
    assert tight.of(made[0]) is tight.of(made[0])
    tight.of(made[1])
    assert len(tight) == 1
