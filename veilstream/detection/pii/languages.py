"""Languages without a model: their own recognizers over a bare tokenizer, loaded when a record first needs one.

Names and places are found in them under profile `accurate` alone (names_abroad.py). A token's lemma is the token, so that
context words are compared as written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer
from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider

from veilstream.detection.pii import national as _national  # noqa: F401 - Presidio finds recognizers by their class's name
from veilstream.detection.pii.names_abroad import NamesAbroad

LANGUAGES: Final = Path(__file__).with_name("languages.yaml")


@cache
def _content() -> Mapping[str, Any]:
    content: dict[str, Any] = yaml.safe_load(LANGUAGES.read_text(encoding="utf-8"))
    return content


def patterns_only() -> tuple[str, ...]:
    """Codes of the languages that need no model, sorted."""
    return tuple(sorted(_content()["languages"]))


class _Tokenizer(SpacyNlpEngine):  # type: ignore[misc]
    """spaCy's bare tokenizer and stop words of one language, in Presidio's form."""

    engine_name = "tokenizer"

    def __init__(self, language: str) -> None:
        super().__init__([{"lang_code": language, "model_name": ""}], NerModelConfiguration(labels_to_ignore=[]))
        self.load()

    def load(self) -> None:
        """Without a model there is nothing to read from a disk."""
        import spacy

        self.nlp = {model["lang_code"]: spacy.blank(model["lang_code"]) for model in self.models}

    def get_supported_entities(self) -> list[str]:
        """None: nothing names entities."""
        return []

    def process_batch(self, texts: Any, language: str, **_: Any) -> Iterator[Any]:
        """Presidio's call."""
        for text in texts:
            yield text, self.process_text(text, language)

    def process_text(self, text: str, language: str) -> Any:
        """Presidio's call."""
        nlp = self.nlp[language]
        nlp.max_length = max(nlp.max_length, len(text))
        doc = nlp(text)
        for token in doc:
            token.lemma_ = token.text
        return self._doc_to_nlp_artifact(doc, language)


def build_language(language: str) -> Any:
    """An `AnalyzerEngine` of one of `patterns_only()`."""
    content = _content()
    of_language = content["languages"][language]
    entries: list[dict[str, Any]] = []
    for entry in (*content["everywhere"], *of_language["recognizers"]):
        spoken: dict[str, Any] = {"language": language}
        if entry["name"] == "CreditCardRecognizer":
            spoken["context"] = of_language["card_context"]
        entries.append({**entry, "supported_languages": [spoken]})
    registry = RecognizerRegistryProvider(
        registry_configuration={"supported_languages": [language], "global_regex_flags": 26, "recognizers": entries}
    ).create_recognizer_registry()
    registry.recognizers = [  # Presidio adds one for named entities, which nothing makes here
        recognizer for recognizer in registry.recognizers if "nlp_engine_recognizers" not in type(recognizer).__module__
    ]
    registry.add_recognizer(
        PhoneRecognizer(
            supported_language=language,
            supported_regions=of_language["phone_regions"],
            context=of_language["phone_context"],
        )
    )
    registry.add_recognizer(NamesAbroad(language))
    return AnalyzerEngine(registry=registry, nlp_engine=_Tokenizer(language), supported_languages=[language])
