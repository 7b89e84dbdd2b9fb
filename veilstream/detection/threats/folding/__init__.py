"""A text as a reader, or a language model, may take it: the raw text and its folded views, each with the way back.

    views(text) -> tuple[View, ...]

The first view is always the raw text (`kind` "raw"). Each later one was made from an earlier one by a step that changed
something, so ordinary ASCII text in one line has one view, and most texts have two:

    plain     NFKC, invisible and bidi marks out, tag characters read, control characters out
    spaced    letter spacing undone: `i g n o r e`, `i-g-n-o-r-e`
    tidy      white space simple (a line break is a space; an empty line stays one line break), emphasis out
    decoded   base64, base32, hexadecimal, binary, decimal codes, URL, HTML entities and escapes undone in place
    latin     look-alikes and accented letters as the ASCII they look like
    whole     words torn by separators made whole, glued words taken apart
    unleet    leetspeak undone
    rot13, reversed, mirrored    words rotated; lines read from their end; words read from theirs (never made a base of another)

The first seven form a chain: each works on the newest of them, so that what is nested comes apart; the chain is gone
through at most ROUNDS times. A view's `original(start, end)` gives the span of the raw text that made a span of the
view, in code points; what was decoded points to all of its encoded span. Spans are in order: a later place of a view
never comes from before an earlier one.

Bounds, for every text: at most VIEWS_MAX views, none longer than GROWTH times its parent, all together at most
TOTAL times the text and TOTAL_FREE characters; time linear in the text. A judge looks at every view and takes the worst;
one that can afford only two takes the first and the last of the chain, `views(text)[0]` and `newest(views(text))`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from veilstream.detection.threats.folding.characters import latin, plain, tidy
from veilstream.detection.threats.folding.decoding import DECODERS, decoded
from veilstream.detection.threats.folding.hints import Hints
from veilstream.detection.threats.folding.view import GROWTH, Piece, View, rewritten
from veilstream.detection.threats.folding.words import (
    Splitter,
    rotated,
    turned_round,
    unleeted,
    unspaced,
    whole,
    words_turned_round,
)

__all__ = ["GROWTH", "ROUNDS", "TOTAL", "TOTAL_FREE", "VIEWS_MAX", "View", "newest", "views"]

ROUNDS: Final = 3
"""How deep encodings and disguises may be nested; nobody's harmless text has two."""
VIEWS_MAX: Final = 14
TOTAL: Final = 10
TOTAL_FREE: Final = 1000
STEPS: Final[dict[str, Callable[[str, frozenset[str], Splitter], list[Piece]]]] = {
    "spaced": lambda text, hints, splitter: unspaced(text, splitter),
    "plain": lambda text, hints, splitter: plain(text),
    "tidy": lambda text, hints, splitter: tidy(text),
    "decoded": lambda text, hints, splitter: decoded(text, hints),
    "latin": lambda text, hints, splitter: latin(text),
    "whole": lambda text, hints, splitter: whole(text, splitter),
    "unleet": lambda text, hints, splitter: unleeted(text),
    "rot13": lambda text, hints, splitter: rotated(text),
    "reversed": lambda text, hints, splitter: turned_round(text),
    "mirrored": lambda text, hints, splitter: words_turned_round(text),
}
CHAIN: Final = ("plain", "spaced", "tidy", "decoded", "latin", "whole", "unleet")
BESIDE: Final = ("rot13", "reversed", "mirrored")
EVEN: Final = frozenset({"plain", "tidy", "latin", "unleet", "rot13"})
"""Steps that replace character by character where they can."""
NEEDS: Final = {
    "spaced": frozenset({"spaced"}),
    "plain": frozenset({"plain"}),
    "tidy": frozenset({"tidy"}),
    "decoded": frozenset(DECODERS),
    "latin": frozenset({"wide"}),
    "whole": frozenset({"whole"}),
    "unleet": frozenset({"leet"}),
    "rot13": frozenset({"rot13"}),
    "reversed": frozenset({"reversed"}),
    "mirrored": frozenset({"reversed"}),
}
"""Step → the hints of which it needs one."""
HINTS: Final = Hints()


def views(text: str) -> tuple[View, ...]:
    """The raw text and its folded views, in the order they were made: see the module."""
    found = [View("raw", text)]
    left = TOTAL * len(text) + TOTAL_FREE - len(text)
    splitter = Splitter()
    newest, hints = found[0], HINTS.of(text)
    for _ in range(ROUNDS):
        before = newest
        for step in CHAIN:
            view = _step(step, newest, hints, splitter)
            if view is None:
                continue
            left -= len(view.text)
            if left < 0 or len(found) == VIEWS_MAX:
                return tuple(found)
            found.append(view)
            newest, hints = view, HINTS.of(view.text)
        if newest is before:
            break
    for step in BESIDE:
        view = _step(step, newest, hints, splitter)
        if view is not None and len(found) < VIEWS_MAX and left >= len(view.text):
            left -= len(view.text)
            found.append(view)
    return tuple(found)


def newest(made: Sequence[View]) -> View:
    """The last view of the chain: everything undone that was found to undo, but for rot13 and reversal."""
    return next(view for view in reversed(made) if view.kind not in BESIDE)


def _step(step: str, view: View, hints: frozenset[str], splitter: Splitter) -> View | None:
    if hints.isdisjoint(NEEDS[step]):
        return None
    return rewritten(step, view, STEPS[step](view.text, hints, splitter), step in EVEN)
