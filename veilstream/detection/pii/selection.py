"""What a request asks of Presidio: which recognizers run, in which order, and what they need to have run before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from presidio_analyzer import EntityRecognizer

from veilstream.contracts.errors import TenantError

TEXT_ONLY: Final = (
    "presidio_analyzer.pattern_recognizer",
    "presidio_analyzer.predefined_recognizers.generic.",
    "presidio_analyzer.predefined_recognizers.country_specific.",
)
"""Modules whose recognizers look at the text alone: their `analyze` never reads what the NLP pipeline made of it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The recognizers of one language and set of entities, in the registry's order.

    Presidio keeps them in a set, so that which of two recognizers with equal results is named differs by process;
    a fixed order makes the source of a finding the same everywhere.
    """

    language: str
    entities: list[str]
    recognizers: list[Any]
    text_only: frozenset[str]
    """Ids of those that read the text alone and can run before the NLP pipeline."""
    boosted: frozenset[str]
    """Ids of those whose scores context words can raise."""
    always_lemmas: bool
    """A recognizer outside Presidio's own reads what it likes, so the whole pipeline must have run."""

    @property
    def uses_pipeline(self) -> bool:
        """Some recognizer works on the NLP pipeline's output (named entities), whatever the text."""
        return len(self.text_only) < len(self.recognizers)


class Selections:
    """The selections of one analyzer engine, kept: a process sees few different ones."""

    def __init__(self, analyzer: Any) -> None:
        self._analyzer = analyzer
        self._order = {recognizer.id: place for place, recognizer in enumerate(analyzer.registry.recognizers)}
        self.select = lru_cache(maxsize=1024)(self._select)

    def supported(self, language: str) -> tuple[str, ...]:
        """Every entity some recognizer of `language` finds, sorted. Raises `TenantError` for an unknown language."""
        if language not in self._analyzer.supported_languages:
            known = ", ".join(self._analyzer.supported_languages)
            raise TenantError(
                f"the policy asks for language {language!r}, the engine has {known}: change the policy,"
                " or add a model for it to the Presidio configuration",
                code="unsupported_language",
            )
        return tuple(sorted(self._analyzer.get_supported_entities(language)))

    def _select(self, language: str, entities: tuple[str, ...] | None) -> Selection:
        """The selection for `entities` (None: all). Raises `TenantError` for an entity nobody finds.

        Presidio would leave such an entity out with a warning, and text would pass unsearched.
        """
        supported = self.supported(language)
        unknown = sorted(set(entities or ()) - set(supported))
        if unknown:
            raise TenantError(
                f"the policy asks for {', '.join(unknown)}, which no recognizer finds in language {language!r}:"
                " change the policy, or add a recognizer to the Presidio configuration",
                code="unsupported_entity",
            )
        asked = list(supported if entities is None else entities)
        recognizers = self._analyzer.registry.get_recognizers(
            language=language, entities=asked, all_fields=entities is None
        )
        recognizers.sort(key=lambda recognizer: self._order[recognizer.id])
        return Selection(
            language=language,
            entities=asked,
            recognizers=recognizers,
            text_only=_ids(recognizer for recognizer in recognizers if _reads_text_only(recognizer)),
            boosted=_ids(recognizer for recognizer in recognizers if _takes_context(recognizer)),
            always_lemmas=any(_is_foreign(recognizer) for recognizer in recognizers),
        )


def _ids(recognizers: Any) -> frozenset[str]:
    return frozenset(recognizer.id for recognizer in recognizers)


def _reads_text_only(recognizer: Any) -> bool:
    return _in_module(recognizer, TEXT_ONLY)


def _takes_context(recognizer: Any) -> bool:
    """It has context words, or its own way to use context."""
    own = type(recognizer).enhance_using_context is not EntityRecognizer.enhance_using_context
    return own or bool(recognizer.context)


def _is_foreign(recognizer: Any) -> bool:
    """Neither text only nor spaCy's own recognizer, which reads named entities and nothing else."""
    spacy_only = ("presidio_analyzer.predefined_recognizers.nlp_engine_recognizers.spacy_recognizer",)
    return not _in_module(recognizer, TEXT_ONLY + spacy_only)


def _in_module(recognizer: Any, modules: Sequence[str]) -> bool:
    """Whether its class itself (not a parent) is written in one of `modules`; a trailing dot means a package."""
    module = type(recognizer).__module__
    return any(module.startswith(name) if name.endswith(".") else module == name for name in modules)
