"""Named entities of spaCy's transition model, read off its own weights with numpy.

spaCy walks the tokens one by one and scores all its moves at each. But outside an entity a score depends on the token
alone, so these are computed for all tokens at once; only inside an entity, where two moves are open (go on, end), is it
done token by token. The moves chosen are spaCy's, by its own rules of validity (`pipeline/_parser_internals/ner.pyx`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from veilstream.detection.pii.tok2vec import Floats, Tok2Vec, understood

ROUNDS: Final = 8
"""Tokens of an entity that are decided for all entities at once; longer ones go on alone, when they are reached."""
FEATURES: Final = 3
"""What spaCy's entity model looks at: this token, the entity's first token, the token before this one."""

Entity = tuple[int, int, str]
"""First token, token after the last, the model's label."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One text's tokens with what the model made of them; the moves are chosen from it, more than once if need be."""

    parts: NDArray[np.floating[Any]]
    """(tokens, FEATURES, pieces, hidden): what a token adds to a state's score, by its role in the state."""
    outside: NDArray[np.floating[Any]]
    """(tokens, moves): scores where no entity is open."""
    space: NDArray[np.bool_]


class Names:
    """The entity model of one spaCy pipeline (`readable` says whether it is one this can compute)."""

    def __init__(self, component: Any) -> None:
        chain = component.model.get_ref("tok2vec")
        network, _, linear = chain.layers
        self._tok2vec = Tok2Vec(network)
        self._linear: Floats = np.ascontiguousarray(linear.get_param("W").T)
        self._linear_bias: Floats = linear.get_param("b").astype(np.float32)
        lower, upper = component.model.get_ref("lower"), component.model.get_ref("upper")
        weights = lower.get_param("W").transpose(0, 2, 1, 3)  # feature, piece, hidden, input
        _, self._pieces, self._hidden, inputs = weights.shape
        self._lower: Floats = np.ascontiguousarray(weights.reshape(-1, inputs).T)
        self._bias: Floats = np.ascontiguousarray(lower.get_param("b").T)
        absent = lower.get_param("pad")[0].transpose(0, 2, 1)
        self._outside: Floats = absent[1] + absent[2] + self._bias  # no entity is open: the two other roles are empty
        self._upper: Floats = np.ascontiguousarray(upper.get_param("W").T)
        self._upper_bias: Floats = upper.get_param("b")
        moves = [component.moves.get_class_name(i) for i in range(component.moves.n_moves)]
        self._kinds = np.array([move[0] if move == "O" or len(move) > 2 else "-" for move in moves])
        self.labels = [move[2:] for move in moves]
        place = {move: i for i, move in enumerate(moves)}
        self._go_on = np.array([place.get(f"I-{label}", -1) for label in self.labels])
        self._end = np.array([place.get(f"L-{label}", -1) for label in self.labels])

    def score(self, docs: Sequence[Any]) -> list[Scored]:
        """Run the model over a batch. A text's scores are the same in any batch."""
        rows, places = self._tok2vec(docs)
        made = (rows @ self._linear + self._linear_bias) @ self._lower
        parts = made.reshape(len(rows), FEATURES, self._pieces, self._hidden)
        hidden = (parts[:, 0] + self._outside).max(axis=1)
        outside = hidden @ self._upper + self._upper_bias
        outside[:, ~np.isin(self._kinds, ("B", "U", "O"))] = -np.inf
        return [Scored(parts[place], outside[place], _spaces(doc)) for doc, place in zip(docs, places, strict=True)]

    def entities(self, scored: Scored, sentence_starts: NDArray[np.bool_] | None = None) -> list[Entity]:
        """The entities of a text; none goes on past the start of a sentence, where those are given."""
        count = len(scored.space)
        stop = np.zeros(count + 1, dtype=bool)  # no entity may go on past this token
        stop[count - 1] = True
        if sentence_starts is not None:
            stop[: count - 1] |= sentence_starts[1:]
        allowed = scored.outside.copy()
        allowed[np.ix_(stop[:count] | scored.space, self._kinds == "B")] = -np.inf
        allowed[np.ix_(scored.space, self._kinds == "U")] = -np.inf
        moves = allowed.argmax(axis=1)
        named = np.flatnonzero(self._kinds[moves] != "O")
        ends = self._ends(scored, moves, named[self._kinds[moves[named]] == "B"], stop)
        found: list[Entity] = []
        after = 0
        for first in named.tolist():
            if first < after:
                continue
            move = int(moves[first])
            after = first + 1 if self._kinds[move] == "U" else self._end_of(scored, first, move, ends, stop)
            found.append((first, after, self.labels[move]))
        return found

    def _ends(
        self, scored: Scored, moves: NDArray[np.intp], firsts: NDArray[np.intp], stop: NDArray[np.bool_]
    ) -> dict[int, int]:
        """First token → token after the last, for all entities that end within ROUNDS tokens."""
        ends: dict[int, int] = {}
        at = firsts + 1
        for _ in range(ROUNDS):
            if not len(firsts):
                break
            over = self._ends_here(scored, firsts, at, moves[firsts], stop)
            ends.update(zip(firsts[over].tolist(), (at[over] + 1).tolist(), strict=True))
            firsts, at = firsts[~over], at[~over] + 1
        return ends

    def _end_of(self, scored: Scored, first: int, move: int, ends: dict[int, int], stop: NDArray[np.bool_]) -> int:
        """The token after an entity that began at `first`, found alone where `ends` has it not."""
        if first in ends:
            return ends[first]
        at = first + 1
        one, moves = np.array([first]), np.array([move])
        while not self._ends_here(scored, one, np.array([at]), moves, stop)[0]:
            at += 1
        return at + 1

    def _ends_here(
        self,
        scored: Scored,
        firsts: NDArray[np.intp],
        at: NDArray[np.intp],
        moves: NDArray[np.intp],
        stop: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Whether each open entity ends at its token `at`: it must at a stop, else the higher score decides."""
        state = scored.parts[at, 0] + scored.parts[firsts, 1] + scored.parts[at - 1, 2] + self._bias
        hidden = state.max(axis=1)
        go_on, end = self._go_on[moves], self._end[moves]
        score_on = np.einsum("ij,ji->i", hidden, self._upper[:, go_on]) + self._upper_bias[go_on]
        score_end = np.einsum("ij,ji->i", hidden, self._upper[:, end]) + self._upper_bias[end]
        higher = np.where(end < go_on, score_end >= score_on, score_end > score_on)  # of equals spaCy takes the first
        over: NDArray[np.bool_] = stop[at] | higher
        return over


def readable(component: Any) -> bool:
    """Whether this module can compute an `ner` component: greedy, three features, and a network it knows."""
    model = getattr(component, "model", None)
    if model is None or type(component).__module__ != "spacy.pipeline.ner" or component.cfg.get("beam_width") != 1:
        return False
    if model.name != "parser_model" or not model.attrs["has_upper"] or model.attrs["unseen_classes"]:
        return False
    chain, lower = model.get_ref("tok2vec"), model.get_ref("lower")
    return (
        len(chain.layers) == FEATURES
        and [layer.name for layer in chain.layers[1:]] == ["list2array", "linear"]
        and lower.name == "precomputable_affine"
        and lower.get_param("W").shape[0] == FEATURES
        and lower.get_param("W").shape[2] > 1
        and understood(chain.layers[0])
    )


def _spaces(doc: Any) -> NDArray[np.bool_]:
    from spacy.attrs import IDS

    flags: NDArray[np.bool_] = doc.to_array([IDS["IS_SPACE"]]).reshape(-1).astype(bool)
    return flags
