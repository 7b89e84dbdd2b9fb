"""The prefilter speaks only against recognizers that find nothing: it takes more than the patterns do, never less."""

from __future__ import annotations

import random
from typing import Any

import phonenumbers
import pytest
import re2
import regex
from phonenumbers.phonemetadata import PhoneMetadata

from tests.parity.texts import text
from veilstream.detection.pii import phone
from veilstream.detection.pii.configuration import build, silence, sources
from veilstream.detection.pii.prefilter import Prefilter
from veilstream.detection.pii.weaken import FOLDED, WeakenError, weaken

FLAGS = 26


@pytest.fixture(scope="module")
def analyzer() -> Any:
    silence()
    return build(sources(None))


def patterned(analyzer: Any) -> list[Any]:
    return [r for r in analyzer.registry.recognizers if getattr(r, "patterns", None)]


def test_it_covers_every_pattern_recognizer_of_the_default_configuration(analyzer: Any) -> None:
    """None of Presidio's patterns is beyond it, so that a text with nothing in it costs one pass."""
    recognizers = patterned(analyzer)
    assert Prefilter(recognizers).covered == {r.id for r in recognizers}


def test_no_match_is_lost_on_generated_texts(analyzer: Any) -> None:
    """Whatever a pattern finds in a text, its recognizer is among the possible ones; Unicode trouble included."""
    recognizers = patterned(analyzer)
    prefilter, r, matched = Prefilter(recognizers), random.Random(7), 0
    for _ in range(1500):
        one = text(r)
        possible = prefilter.possible(one)
        for recognizer in recognizers:
            if any(regex.search(p.regex, one, flags=recognizer.global_regex_flags) for p in recognizer.patterns):
                matched += 1
                assert recognizer.id in possible, (recognizer.name, one)
    assert matched > 1000


def test_it_rules_out_most_recognizers_of_a_plain_text(analyzer: Any) -> None:
    """A filter that lets all through would pass the other tests."""
    assert Prefilter(patterned(analyzer)).possible("The harbour was quiet and the boats lay still.") == frozenset()


@pytest.mark.parametrize(
    ("pattern", "match", "miss"),
    [
        (r"\bab\b", "x ab.", "xaby"),
        (r"(?<!x)a(?=b)b{2,3}", "abb", "ab"),
        (r"([:-])a\1", ":a:", "b"),
        (r"[^\d\s]{3}", "abc", "1 2"),
        (r"(?:cat|dog)s?", "CATS", "ca"),
        (r"k\d", "\u212a7", "j7"),
        (r"[\u00a1-\uffff]+x", "s\u017fx", "y"),
        (r"i", "İ", "j"),
        (r"\w+@\w", "é@é", "é"),
        (r"x{2,40}y", "x" * 40 + "y", "xy"),
        (r"(?>a+)b", "aab", "b"),
        ("|".join(f"w{n}q" for n in range(40)), "w39q", "q"),
    ],
)
def test_a_weak_pattern_takes_what_the_pattern_takes(pattern: str, match: str, miss: str) -> None:
    """Anchors, look-around, cases outside ASCII, references, long repeats and alternations; near misses stay out."""
    assert regex.search(pattern, match, flags=FLAGS)
    tight, loose = weaken(pattern, FLAGS)
    wild = "".join(c if c.isascii() else "\0" for c in match)
    assert re2.search(loose, wild)
    assert not match.isascii() or re2.search(tight, match)
    assert not re2.search(tight if miss.isascii() else loose, "".join(c if c.isascii() else "\0" for c in miss))


@pytest.mark.parametrize(
    "pattern",
    [r"(?:foo){e<=1}", r"[[:alpha:]]x", r"\p{L}+", r"\X", r"(?a)\w", r"(?x) a b", r"a(?(1)b|c)", r"(", r"[a--b]"],
)
def test_a_pattern_that_is_read_differently_always_runs(pattern: str) -> None:
    """What only the `regex` module has, or what Python reads otherwise, is refused and not guessed."""
    with pytest.raises(WeakenError):
        weaken(pattern, FLAGS)


def test_flags_not_known_here_are_refused() -> None:
    """Full case folding would match one character with two."""
    with pytest.raises(WeakenError):
        weaken("ss", FLAGS | int(regex.FULLCASE))


def test_the_letters_with_another_case_outside_ascii_are_those_listed() -> None:
    """Of all code points, those that the `regex` module takes for an ASCII letter in another case."""
    letters = regex.compile("[a-z]", flags=regex.IGNORECASE)
    beyond = [chr(code) for code in range(128, 0x110000) if letters.fullmatch(chr(code))]
    equal = {
        ord(a) for b in beyond for a in map(chr, range(128)) if regex.fullmatch(regex.escape(b), a, regex.IGNORECASE)
    }
    assert {ord("k"), ord("s"), ord("i")} <= equal <= FOLDED


def test_the_shortest_phone_number_has_four_digits() -> None:
    """Of every country and every other calling code in the library's metadata: what `phone.possible` counts on."""
    of_countries = [PhoneMetadata.metadata_for_region(region) for region in phonenumbers.SUPPORTED_REGIONS]
    others = [PhoneMetadata.metadata_for_nongeo_region(code) for code in phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS]
    kinds = (
        "toll_free",
        "premium_rate",
        "fixed_line",
        "mobile",
        "shared_cost",
        "personal_number",
        "voip",
        "pager",
        "uan",
        "voicemail",
    )
    lengths = [
        length
        for metadata in of_countries + others
        for kind in kinds
        if (description := getattr(metadata, kind)) is not None
        for length in description.possible_length or ()
        if length > 0
    ]
    assert min(lengths) == phone.DIGITS_LEAST


def test_no_phone_number_is_lost_on_generated_texts(analyzer: Any) -> None:
    """Where Presidio finds a number the text is possible, and the quick search gives the same results."""
    recognizer = next(r for r in analyzer.registry.recognizers if r.name == "PhoneRecognizer")
    r, found, ruled_out = random.Random(11), 0, 0
    for _ in range(250):
        one = text(r)
        expected = recognizer.analyze(one, [], None)
        possible = phone.possible(one, recognizer)
        assert possible or not expected, one
        assert phone.find(one, recognizer) == expected
        found, ruled_out = found + bool(expected), ruled_out + (not possible)
    assert found > 20
    assert ruled_out > 20
