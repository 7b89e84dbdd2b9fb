"""What a request asks of Presidio: which recognizers run, in which order, and what they need to have run before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from presidio_analyzer import EntityRecognizer
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer

from veilstream.contracts.errors import TenantError
from veilstream.detection.model import Profile
from veilstream.detection.pii.accurate import REPLACED
from veilstream.detection.pii.context import ContextWords
from veilstream.detection.pii.pipeline import Stages

TEXT_ONLY: Final = (
    "presidio_analyzer.pattern_recognizer",
    "presidio_analyzer.predefined_recognizers.generic.",
    "presidio_analyzer.predefined_recognizers.country_specific.",
)
"""Modules whose recognizers look at the text alone: their `analyze` never reads what the NLP pipeline made of it."""
SPACY: Final = "presidio_analyzer.predefined_recognizers.nlp_engine_recognizers.spacy_recognizer"
"""Module of the recognizer that reads spaCy's named entities and nothing else."""
ACCURATE_LANGUAGE: Final = "en"
"""What the second model and the forest were trained on."""
OF_MODEL: Final = "presidio_analyzer.predefined_recognizers.nlp_engine_recognizers."
"""Package of the recognizers that hand on an NLP model's named entities; profile `fast` leaves them out."""
ABROAD: Final = "veilstream.detection.pii.names_abroad"
"""Module of the recognizer of names in languages without a model, which is profile `accurate`'s alone."""


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
    context: Mapping[str, ContextWords]
    """By id, the context words of those whose scores Presidio's enhancer can raise."""
    stages: Stages | None
    """The pipeline by parts; None: a part of the configuration may read anything, so all of it runs for every text."""

    accurate: frozenset[str] = frozenset()
    """Asked entities that profile `accurate` finds with its own models; else none."""

    @property
    def uses_names(self) -> bool:
        """Some recognizer works on the NLP pipeline's output (named entities), whatever the text."""
        return len(self.text_only) < len(self.recognizers)


class Selections:
    """The selections of one analyzer engine, kept: a process sees few different ones."""

    def __init__(self, analyzer: Any, stages: Mapping[str, Stages]) -> None:
        self._analyzer, self._stages = analyzer, stages
        self._order = {recognizer.id: place for place, recognizer in enumerate(analyzer.registry.recognizers)}
        self.select = lru_cache(maxsize=1024)(self._select)
        self.supported = lru_cache(maxsize=64)(self._supported)

    def forget(self) -> None:
        """Keep what texts taught the pipelines within bounds.

        Only of those whose parts are known: what others keep of a text may point at its words.
        """
        for stages in self._stages.values():
            stages.forget()

    def _supported(self, language: str, profile: Profile = "parity") -> tuple[str, ...]:
        """Every entity some recognizer of the language and profile finds, sorted.

        Raises `TenantError` for an unknown language.
        """
        if language not in self._analyzer.supported_languages:
            known = ", ".join(self._analyzer.supported_languages)
            raise TenantError(
                f"the policy asks for language {language!r}, the engine has {known}: change the policy,"
                " or add a model for it to the Presidio configuration",
                code="unsupported_language",
            )
        recognizers = self._recognizers(language, self._analyzer.get_supported_entities(language), profile)
        return tuple(sorted({entity for recognizer in recognizers for entity in recognizer.supported_entities}))

    def _select(self, language: str, entities: tuple[str, ...] | None, profile: Profile) -> Selection:
        """The selection for `entities` (None: all). Raises `TenantError` for an entity nobody finds.

        Presidio would leave such an entity out with a warning, and text would pass unsearched.
        """
        supported = self.supported(language, profile)
        unknown = sorted(set(entities or ()) - set(supported))
        if unknown:
            raise TenantError(
                f"the policy asks for {', '.join(unknown)}, which no recognizer of the profile {profile} finds in"
                f" language {language!r}: change the policy, or add a recognizer to the Presidio configuration",
                code="unsupported_entity",
            )
        asked = list(supported if entities is None else entities)
        recognizers = self._recognizers(language, asked, profile) if asked else []
        understood = self._stages.get(language) if self._understood(recognizers) else None
        accurate = profile == "accurate" and language == ACCURATE_LANGUAGE
        replaced = frozenset(asked) & frozenset(REPLACED) if accurate else frozenset()
        if replaced and understood is None:
            raise TenantError(
                "the profile accurate works with a spaCy pipeline and recognizers of Presidio's own kinds: choose the profile"
                " parity for this configuration",
                code="unsupported_language",
            )
        return Selection(
            language=language,
            entities=asked,
            recognizers=recognizers,
            text_only=frozenset(recognizer.id for recognizer in recognizers if _in_module(recognizer, TEXT_ONLY)),
            context={
                recognizer.id: ContextWords(
                    recognizer.context, self._analyzer.context_aware_enhancer.context_matching_mode
                )
                for recognizer in recognizers
                if recognizer.context and self._understood(recognizers)
            },
            stages=understood,
            accurate=replaced,
        )

    def _recognizers(self, language: str, entities: list[str], profile: Profile) -> list[Any]:
        found = self._analyzer.registry.get_recognizers(language=language, entities=entities)
        if profile == "fast":
            found = [recognizer for recognizer in found if not _in_module(recognizer, (OF_MODEL,))]
        if profile != "accurate":
            found = [recognizer for recognizer in found if not _in_module(recognizer, (ABROAD,))]
        return sorted(found, key=lambda recognizer: self._order[recognizer.id])

    def _understood(self, recognizers: Sequence[Any]) -> bool:
        """Every recognizer, and what raises scores by context, is Presidio's own: it is known what each reads."""
        return type(self._analyzer.context_aware_enhancer) is LemmaContextAwareEnhancer and all(
            _in_module(recognizer, (*TEXT_ONLY, SPACY))
            and type(recognizer).enhance_using_context is EntityRecognizer.enhance_using_context
            and "" not in (recognizer.context or ())  # Presidio takes an empty word for found, then for nothing found
            for recognizer in recognizers
        )


def _in_module(recognizer: Any, modules: Sequence[str]) -> bool:
    """Whether its class itself (not a parent) is written in one of `modules`; a trailing dot means a package."""
    module = type(recognizer).__module__
    return any(module.startswith(name) if name.endswith(".") else module == name for name in modules)
