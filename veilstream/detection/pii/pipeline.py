"""The spaCy pipeline: in batches, on numpy's BLAS, and of it only what somebody will read.

`Stages` runs the components of a pipeline it knows one by one, each for the texts that need it. `Whole` runs pipelines
it does not know, and whatever else Presidio can hold as an NLP engine, through Presidio's own call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from veilstream.detection.pii import lemmas, names, tok2vec
from veilstream.detection.pii.context import Keywords, Surroundings, WordKinds
from veilstream.detection.pii.names import Entity, Scored

BATCH_TEXTS: Final = 50
"""Texts in one call of the models: above this the gain is gone and the caches suffer."""
BATCH_CHARACTERS: Final = 100_000
"""Code points in one call, unless a single text is longer: bounds memory (some 3 kB a code point at worst)."""

NEW_STRINGS: Final = 20_000
"""Strings a vocabulary learns before they are given up: some 9 MB with their words. Not after each call: making words is dear."""

LEMMATIZING: Final = ("tagger", "parser", "attribute_ruler", "lemmatizer")
"""Components that make lemmas, and read nothing but each other and the token vectors."""
UNDERSTOOD: Final = {"tok2vec", *LEMMATIZING, "ner"}
"""With any other component in a pipeline we do not know who reads what, and leave out nothing."""


@dataclass(slots=True)
class Named:
    """A named entity, with what Presidio reads of spaCy's spans and renames."""

    label_: str
    start_char: int
    end_char: int


class Stages:
    """One language's spaCy pipeline, by parts. All texts go through its tokenizer; what else, the callers say.

    1. `names`: the entity model first, though it is last in the pipeline. What it asks of the parser is only where
       sentences start, as no entity goes on past one. So the parser runs for texts with an entity of several tokens,
       and the entities are chosen anew where a sentence starts inside one. (A start elsewhere forbids only moves that
       were not chosen.)
    2. `surroundings`: the words around findings, each with every lemma it can have; with `sure`, with the lemma that
       tagger, parser, attribute ruler and lemmatizer give it.
    """

    def __init__(self, nlp: Any, presidio: Any) -> None:
        self._nlp, self._presidio = nlp, presidio
        self._names = names.Names(nlp.get_pipe("ner"))
        self._shared = tok2vec.Tok2Vec(nlp.get_pipe("tok2vec").model)
        self._lemmas, self._kinds = lemmas.Lemmas(nlp), WordKinds(nlp)
        self.labels = self._names.labels
        """The label of each of the entity model's moves."""
        self._own_strings = len(nlp.vocab.strings)
        self._learned = ExitStack()
        self._learned.enter_context(nlp.memory_zone())

    def forget(self) -> None:
        """Give up the words that texts taught the pipeline's vocabulary, once they are many; else spaCy keeps all of them.

        No document read before may be used after.
        """
        if len(self._nlp.vocab.strings) - self._own_strings > NEW_STRINGS:
            self._learned.close()
            self._learned.enter_context(self._nlp.memory_zone())

    def read(self, text: str) -> Any:
        """The text's tokens."""
        return self._nlp.make_doc(text)

    def names(self, docs: Sequence[Any]) -> list[Any]:
        """For each text, what Presidio's `SpacyRecognizer` reads: entities and scores, renamed as it is configured."""
        scored = self._names.score(docs)
        entities = [self._names.entities(one) for one in scored]
        crossing = [place for place, found in enumerate(entities) if any(end - first > 1 for first, end, _ in found)]
        if self._nlp.has_pipe("parser"):
            self._parse([docs[place] for place in crossing])
            for place in crossing:
                starts = _sentence_starts(docs[place])
                if any(starts[first + 1 : end].any() for first, end, _ in entities[place]):
                    entities[place] = self._names.entities(scored[place], starts)
        rows = zip(docs, entities, scored, strict=True)
        return [self._artifacts(doc, found, one) for doc, found, one in rows]

    def surroundings(self, doc: Any, text: str, *, sure: bool) -> Surroundings:
        """The tokens of a text with their lemmas, `sure` or possible."""
        from spacy.attrs import IDX, LENGTH

        places = doc.to_array([IDX, LENGTH])
        starts = places[:, 0].tolist()
        ends = (places[:, 0] + places[:, 1]).tolist()
        if not sure:
            possible = [self._lemmas.of(text[start:end]) for start, end in zip(starts, ends, strict=True)]
            return Surroundings(starts, ends, possible, self._kinds, sure=False)
        self._lemmatize(doc)
        return Surroundings(starts, ends, [(token.lemma_,) for token in doc], self._kinds, sure=True)

    def _artifacts(self, doc: Any, entities: Sequence[Entity], scored: Scored) -> Any:
        spans = [Named(label, doc[first].idx, doc[end - 1].idx + len(doc[end - 1])) for first, end, label in entities]
        scores = self._presidio._get_scores_for_entities(SimpleNamespace(ents=spans))
        renamed, scores = self._presidio._get_updated_entities(spans, scores)
        return SimpleNamespace(entities=renamed, scores=scores, found=entities, scored=scored)

    def _parse(self, docs: Sequence[Any]) -> None:
        if docs:
            self._give_vectors(docs)
            parser = self._nlp.get_pipe("parser")
            parser.set_annotations(docs, parser.predict(docs))

    def _lemmatize(self, doc: Any) -> None:
        self._give_vectors([doc])
        for name, component in self._nlp.pipeline:
            if name in LEMMATIZING and not (name == "parser" and doc.has_annotation("DEP")):
                component(doc)

    def _give_vectors(self, docs: Sequence[Any]) -> None:
        """The vectors that tagger and parser share, where their listeners look for them."""
        missing = [doc for doc in docs if not doc.tensor.size]
        if missing:
            rows, places = self._shared(missing)
            for doc, place in zip(missing, places, strict=True):
                doc.tensor = np.ascontiguousarray(rows[place])


class Whole:
    """An NLP engine that is not understood: all of it, for every text, as Presidio runs it."""

    def __init__(self, nlp_engine: Any) -> None:
        self._engine = nlp_engine

    def run(self, texts: Sequence[str], language: str) -> list[Any]:
        """Presidio's `NlpArtifacts` of each text."""
        artifacts: list[Any] = []
        for batch in batches(texts):
            for _, artifact in self._engine.process_batch(batch, language, batch_size=len(batch)):
                artifact.keywords = Keywords(artifact.keywords)
                artifacts.append(artifact)
        return artifacts


def stages(nlp_engine: Any) -> dict[str, Stages]:
    """The languages whose pipeline can be run by parts; puts every pipeline on numpy's BLAS."""
    if getattr(nlp_engine, "engine_name", "") != "spacy":
        return {}
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    known: dict[str, Stages] = {}
    for language, nlp in nlp_engine.nlp.items():
        use_numpy_blas(nlp)
        if type(nlp_engine) is SpacyNlpEngine and _understood(nlp):
            known[language] = Stages(nlp, nlp_engine)
    return known


def _understood(nlp: Any) -> bool:
    """Whether it is provable from the pipeline itself that its parts can be run, or left out, one by one."""
    parts = nlp.pipe_names
    return (
        set(parts) <= UNDERSTOOD
        and parts[:1] == ["tok2vec"]
        and parts[-1:] == ["ner"]
        and tok2vec.understood(nlp.get_pipe("tok2vec").model)
        and names.readable(nlp.get_pipe("ner"))
        and lemmas.foreseeable(nlp)
    )


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
        model: Any = getattr(component, "model", None)
        for node in model.walk() if hasattr(model, "walk") else ():
            node.ops = ops


def _sentence_starts(doc: Any) -> Any:
    from spacy.attrs import SENT_START

    return doc.to_array([SENT_START]).reshape(-1) == 1
