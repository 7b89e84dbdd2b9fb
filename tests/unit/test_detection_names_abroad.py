"""Profile `accurate` in languages without a model of their own: names by the second model alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from bench.accuracy_score import matches
from tests.unit.detection_corpus import request
from veilstream.contracts.errors import TenantError
from veilstream.detection import engine

TEXTS: Final = Path(__file__).parents[1] / "data" / "accuracy" / "names_abroad.txt"
_MARKED: Final = re.compile(r"\[(PERSON|LOCATION) ([^\]]+)\]")
LANGUAGES: Final = ("de", "es", "fr", "it", "pl")
NAMES: Final = ("PERSON", "LOCATION")


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    engine.load(None)


def _read(line: str) -> tuple[str, str, list[tuple[int, int, str]]]:
    """Language, text, and the names that are marked in it."""
    language, marked = line.split("\t")
    text, names, before = "", [], 0
    for name in _MARKED.finditer(marked):
        text += marked[before : name.start()]
        names.append((len(text), len(text) + len(name[2]), name[1]))
        text += name[2]
        before = name.end()
    return language, text + marked[before:], names


CASES: Final = [_read(line) for line in TEXTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def _found(text: str, language: str, **config: object) -> list[tuple[int, int, str]]:
    (answer,) = engine.detect([request(text, language=language, threats=False, **config)])
    return [(finding.start, finding.end, finding.type) for finding in answer.findings if finding.type in NAMES]


@pytest.mark.parametrize("language", LANGUAGES)
def test_most_names_are_found_and_few_others(language: str) -> None:
    """In each language at least 70 % of the marked names, and at most a fifth of what is found is none."""
    found = names = right = 0
    for text, marked in ((text, marked) for spoken, text, marked in CASES if spoken == language):
        got = _found(text, language, profile="accurate", entities=NAMES)
        found, names = found + len(got), names + len(marked)
        for kind in NAMES:
            right += matches(*([one[:2] for one in spans if one[2] == kind] for spans in (marked, got)))
    assert right >= 0.7 * names, (right, names)
    assert right >= 0.8 * found, (right, found)


def test_only_this_profile_finds_names() -> None:
    """Under `parity` and `fast` a policy that asks for persons in German is refused, with all entities it gets none."""
    text = "Sehr geehrter Herr Klaus Müller, bitte rufen Sie uns morgen zurück."
    assert _found(text, "de", profile="accurate") == [(19, 31, "PERSON")]
    for profile in ("parity", "fast"):
        assert _found(text, "de", profile=profile) == []
        with pytest.raises(TenantError, match="PERSON"):
            _found(text, "de", profile=profile, entities=("PERSON",))


@pytest.mark.parametrize(
    "text",
    [
        "Schreiben Sie an klaus.mueller@beispiel.example oder https://beispiel.example/Klaus/Mueller",
        "80331 12 4711 0815",
        "?! ... --",
        "",
    ],
)
def test_what_is_no_name(text: str) -> None:
    """A name inside an address of e-mail or the web is none, and digits alone are no place."""
    assert _found(text, "de", profile="accurate") == []


def test_a_told_language_is_searched_as_if_it_were_given() -> None:
    """`detect` gives what the language itself gives."""
    text = "Guten Tag, mein Name ist Jürgen Becker und ich habe eine Frage zu meiner letzten Rechnung."
    assert _found(text, "detect", profile="accurate") == _found(text, "de", profile="accurate") == [(25, 38, "PERSON")]
