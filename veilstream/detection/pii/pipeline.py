"""The spaCy pipeline: in batches, on numpy's BLAS, and without the components whose output nobody will read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final

from veilstream.detection.pii.context import Keywords

BATCH_TEXTS: Final = 50
"""Texts in one call of the pipeline: above this the gain is gone and the caches suffer."""
BATCH_CHARACTERS: Final = 100_000
"""Code points in one call, unless a single text is longer: bounds memory (some 3 kB a code point at worst)."""

LEMMATIZING: Final = frozenset({"tagger", "attribute_ruler", "lemmatizer"})
"""Components that only the words around a finding (lemmas) need."""
UNDERSTOOD: Final = LEMMATIZING | {"tok2vec", "parser", "ner"}
"""With any other component in a pipeline we do not know who reads what, and leave out nothing."""
MADE_BY_LEMMATIZING: Final = frozenset({"TAG", "POS", "MORPH", "LEMMA"})


class Pipeline:
    """Presidio's NLP engine, asked for what is needed only.

    Leaving a component out is allowed where it is provable from the pipeline itself that no other component reads its
    output. The parser always runs: named entities never cross its sentence starts, and lemmas use its labels.
    """

    def __init__(self, nlp_engine: Any) -> None:
        self._engine = nlp_engine
        self._without_lemmas: dict[str, list[str]] = {}
        self._without_names: dict[str, list[str]] = {}
        if getattr(nlp_engine, "engine_name", "") == "spacy":
            for language, nlp in nlp_engine.nlp.items():
                use_numpy_blas(nlp)
                self._without_lemmas[language] = _droppable_for_names(nlp)
                self._without_names[language] = _droppable_for_lemmas(nlp)

    def run(self, texts: Sequence[str], language: str, *, names: bool, lemmas: bool) -> list[Any]:
        """Presidio's `NlpArtifacts` of each text; without `names` entities may be missing, without `lemmas` lemmas."""
        disabled = [] if names else self._without_names.get(language, [])
        if not lemmas:
            disabled = disabled + self._without_lemmas.get(language, [])
        artifacts: list[Any] = []
        with ExitStack() as stack:
            if disabled:
                stack.enter_context(self._engine.nlp[language].select_pipes(disable=disabled))
            for batch in batches(texts):
                made = self._engine.process_batch(batch, language, batch_size=len(batch))
                for _, artifact in made:
                    artifact.keywords = Keywords(artifact.keywords)
                    artifacts.append(artifact)
        return artifacts


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut `texts`, in order, into runs of at most BATCH_TEXTS and BATCH_CHARACTERS; a longer text goes alone."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == BATCH_TEXTS or characters + len(text) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def use_numpy_blas(nlp: Any) -> None:
    """Multiply on numpy's BLAS: the blis wheel runs its slowest kernel on processors it does not know."""
    from thinc.api import NumpyOps

    ops = NumpyOps(use_blis=False)
    for _, component in nlp.pipeline:
        for node in _nodes(component):
            node.ops = ops


def _droppable_for_names(nlp: Any) -> list[str]:
    """The lemmatizing components, where the parser and the entity model read none of their output."""
    if not set(nlp.pipe_names) <= UNDERSTOOD:
        return []
    for name, component in nlp.pipeline:
        if name not in LEMMATIZING and _features(component) & MADE_BY_LEMMATIZING:
            return []
    return [name for name in nlp.pipe_names if name in LEMMATIZING]


def _droppable_for_lemmas(nlp: Any) -> list[str]:
    """The entity model, where it is the last component: nothing after it could read what it found."""
    last = nlp.pipe_names[-1:] == ["ner"] and set(nlp.pipe_names) <= UNDERSTOOD
    return ["ner"] if last else []


def _features(component: Any) -> set[str]:
    """Names of the token attributes a component's model reads."""
    from spacy.attrs import NAMES

    columns: set[str] = set()
    for node in _nodes(component):
        if node.name == "extract_features":
            columns.update(NAMES[column] if isinstance(column, int) else column for column in node.attrs["columns"])
    return columns


def _nodes(component: Any) -> list[Any]:
    """Every layer of a component's model; none for components that have no model."""
    model: Any = getattr(component, "model", None)
    return list(model.walk()) if hasattr(model, "walk") else []
