"""Languages without a model: patterns, checksums and context words of their own; English stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from veilstream.contracts.errors import TenantError
from veilstream.detection import engine
from veilstream.detection.model import DETECT, DetectionConfig, DetectionRequest, OwnRules, TextField
from veilstream.detection.pii.languages import patterns_only
from veilstream.policy.document import parse_policy


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    engine.load(None)


def find(
    text: str, language: str, entities: tuple[str, ...] | None = None, **config: Any
) -> list[tuple[str, str, float]]:
    asked = DetectionConfig(language=language, entities=entities, **config)
    found = engine.detect([DetectionRequest((TextField("text", text),), asked)])[0].findings
    return [(f.type, text[f.start : f.end], f.score) for f in found]


@pytest.mark.parametrize(
    ("language", "entity", "text", "values"),
    [
        ("de", "DE_TAX_ID", "Meine Steuer-ID: 86095742719.", ["86095742719"]),
        ("de", "DE_TAX_ID", "86095742718 und 06095742719 und 860957427190", []),
        ("de", "DE_ID_CARD", "Ausweis L01X00T44", ["L01X00T44"]),
        ("de", "DE_ID_CARD", "Ausweis L01X00T45", []),
        ("de", "DE_PASSPORT", "Reisepass C01X00T41", ["C01X00T41"]),
        ("de", "DE_PASSPORT", "Reisepass C01X00T42", []),
        ("de", "PHONE_NUMBER", "Ruf mich an: 030 901820", ["030 901820"]),
        ("es", "ES_NIF", "DNI 12345678Z", ["12345678Z"]),
        ("es", "ES_NIF", "DNI 12345678A", []),
        ("es", "ES_NIE", "NIE X1234567L", ["X1234567L"]),
        ("es", "ES_NIE", "NIE X1234567M", []),
        ("fr", "FR_NIR", "sécu 2 69 05 49 588 157 80", ["2 69 05 49 588 157 80"]),
        ("fr", "FR_NIR", "269054958815780", ["269054958815780"]),
        ("fr", "FR_NIR", "né en Corse : 2 84 05 2A 018 065 81", ["2 84 05 2A 018 065 81"]),
        ("fr", "FR_NIR", "269054958815781 (clé)", []),
        ("fr", "FR_NIR", "2 69 13 49 588 157 80", []),
        ("fr", "FR_NIR", "5 69 05 49 588 157 80", []),
        ("fr", "FR_NIR", "12690549588157803", []),
        ("fr", "PHONE_NUMBER", "tél 01 42 68 53 00", ["01 42 68 53 00"]),
        ("it", "IT_FISCAL_CODE", "codice fiscale RSSMRA85T10A562S", ["RSSMRA85T10A562S"]),
        ("it", "IT_FISCAL_CODE", "codice fiscale RSSMRA85T10A562", []),
        ("pl", "PL_PESEL", "PESEL 44051401359", ["44051401359"]),
        ("pl", "PL_PESEL", "PESEL 44051401358", []),
        *[(language, "EMAIL_ADDRESS", "𝔘 ann@example.com", ["ann@example.com"]) for language in patterns_only()],
        *[(language, "IBAN_CODE", "IBAN DE89370400440532013000", ["DE89370400440532013000"]) for language in patterns_only()],
        *[(language, "IBAN_CODE", "IBAN DE88370400440532013000", []) for language in patterns_only()],
    ],
)  # fmt: skip
def test_national_numbers_are_found_by_their_checksums(
    language: str, entity: str, text: str, values: list[str]
) -> None:
    """Near misses have a wrong digit."""
    for profile in ("parity", "fast"):
        assert [value for _, value, _ in find(text, language, (entity,), profile=profile)] == values


@pytest.mark.parametrize(
    ("language", "near", "far"),
    [
        ("de", "meine Telefonnummer: 030 901820", "das Ergebnis war 030 901820"),
        ("fr", "mon téléphone : 01 42 68 53 00", "le total est 01 42 68 53 00"),
        ("es", "mi teléfono es 612 345 678", "el total es 612 345 678"),
    ],
)
def test_context_words_are_the_languages_own(language: str, near: str, far: str) -> None:
    """They raise the score as in English."""
    [(_, _, raised)], [(_, _, plain)] = (find(text, language, ("PHONE_NUMBER",)) for text in (near, far))
    assert raised == pytest.approx(plain + 0.35)


def test_own_recognizers_run_in_every_language() -> None:
    """With their context words."""
    own = {
        "name": "o",
        "entity": "PERSONALNR",
        "patterns": [{"name": "p", "regex": r"P-\d{4}"}],
        "context": ["personal"],
    }
    policy = parse_policy({"id": "p", "version": "1.0.0", "detection": {"language": "de", "recognizers": [own]}})
    assert policy.own_rules is not None
    rules = OwnRules(*policy.own_rules)
    assert find("Personal: P-1234 geht", "de", ("PERSONALNR",), own=rules) == [("PERSONALNR", "P-1234", 0.85)]
    assert ("PERSONALNR", "P-1234", 0.5) in find("Nummer P-1234", "fr", own=rules)


GERMAN = "Bitte schicken Sie mir die Unterlagen zu meiner Steuer-ID 86095742719 noch in dieser Woche zu."
SPANISH = "Por favor, envíeme los documentos de mi DNI 12345678Z antes del viernes, muchas gracias."
FRENCH = "Bonjour, mon numéro de sécurité sociale est le 269054958815780, merci de me répondre rapidement."
ENGLISH = "Please send the papers about my social security number 078-05-1121 to Ann Miller this week."


@pytest.mark.parametrize(
    ("text", "entity", "language"),
    [(GERMAN, "DE_TAX_ID", "de"), (SPANISH, "ES_NIF", "es"), (FRENCH, "FR_NIR", "fr"), (ENGLISH, "PERSON", "en")],
)
def test_a_records_language_is_told_from_its_texts(text: str, entity: str, language: str) -> None:
    """Where the policy says so; the batch does not matter. Which it was is said, also where it was given."""
    assert entity in {found for found, _, _ in find(text, DETECT)}
    config = DetectionConfig(language=DETECT)
    texts = (GERMAN, ENGLISH, SPANISH, text, "", "x")
    together = engine.detect([DetectionRequest((TextField("text", one),), config) for one in texts])
    alone = engine.detect([DetectionRequest((TextField("text", text),), config)])
    assert together[3] == alone[0]
    assert [one.language for one in together] == ["de", "en", "es", language, "en", "en"]
    given = engine.detect([DetectionRequest((TextField("text", text),), DetectionConfig(language="it"))])
    assert given[0].language == "it"


@pytest.mark.parametrize(
    "text",
    [
        "Ann Miller",
        "ok",
        "",
        "x",
        "4111 1111 1111 1111",
        "Juan García, Maria Rossi, Pierre Dupont, Carlos Hernández, Giovanni Bianchi",
        "🙂" * 40,
        "さようなら、また明日お会いしましょう。お元気でお過ごしください。",
    ],
)
def test_what_cannot_be_told_is_the_engines_first_language(text: str) -> None:
    """Names, codes, and languages nobody has: English, with its model."""
    assert find(text, DETECT) == find(text, "en")
    told = engine.detect([DetectionRequest((TextField("text", text),), DetectionConfig(language=DETECT))])
    assert told[0].language == "en"


def test_a_records_fields_have_one_language() -> None:
    """Told from all of them, so that a field of a number alone is read in the language of the others."""
    fields = (TextField("a", GERMAN), TextField("b", "L01X00T44"))
    found = engine.detect([DetectionRequest(fields, DetectionConfig(language=DETECT))])[0].findings
    assert ("DE_ID_CARD", "b") in {(f.type, f.path) for f in found}


def test_what_a_language_cannot_find_refuses_the_record() -> None:
    """Names in a language without a model, and a language that nobody has: text is not passed unsearched."""
    for language, entities, code in (("de", ("PERSON",), "unsupported_entity"), ("xx", None, "unsupported_language")):
        with pytest.raises(TenantError) as refused:
            find("Ann Miller", language, entities)
        assert refused.value.reason_code == code
    with pytest.raises(TenantError):
        find(GERMAN, DETECT, ("PERSON",))


def test_every_languages_entities_are_told() -> None:
    """And none of them is a name."""
    for language in patterns_only():
        assert find("x", language, ("EMAIL_ADDRESS", "IBAN_CODE", "PHONE_NUMBER")) == []
        for name in ("PERSON", "LOCATION", "NRP"):
            with pytest.raises(TenantError, match=name):
                find("x", language, ("EMAIL_ADDRESS", name))
