"""A text as a reader, or a language model, may take it: the raw text and its folded views, each with the way back.

    views(text) -> tuple[View, ...]

The first view is always the raw text (`kind` "raw"). Each later one was made from an earlier one by a step that changed
something, so ordinary ASCII text in one line has one view, and most texts have two:

    plain     NFKC, invisible and bidi marks out, tag characters read, control characters out
    spaced    letter spacing undone: `i g n o r e`, `i-g-n-o-r-e`
    tidy      white space simple (a line break is a space), emphasis out
    decoded   base64, base32, hexadecimal, binary, decimal codes, URL, HTML entities and escapes undone in place
    latin     look-alikes and accented letters as the ASCII they look like
    whole     words torn by separators made whole, glued words taken apart
    unleet    leetspeak undone
    rot13, reversed, mirrored    words rotated; lines read from their end; words read from theirs: beside the chain,
    each with a chain of one round of its own

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
VIEWS_MAX: Final = 16
TOTAL: Final = 10
TOTAL_FREE: Final = 1000
STEPS: Final[dict[str, Callable[[str, frozenset[str], Splitter], list[Piece]]]] = {
    "spaced": lambda text, hints, splitter: unspaced(text, splitter),
    "plain": lambda text, hints, splitter: plain(text),
    "tidy": lambda text, hints, splitter: tidy(text),
    "decoded": lambda text, hints, splitter: decoded(text, hints),
    "latin": lambda text, hints, splitter: latin(text),
    "whole": whole,
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
    "whole": frozenset({"parted", "shorts", "glued"}),
    "unleet": frozenset({"leet"}),
    "rot13": frozenset({"rot13"}),
    "reversed": frozenset({"reversed"}),
    "mirrored": frozenset({"reversed"}),
}
"""Step → the hints of which it needs one."""
HINTS: Final = Hints()


def views(text: str) -> tuple[View, ...]:
    """The raw text and its folded views, in the order they were made: see the module."""
    made = _Made(text)
    last = made.chain(made.views[0], ROUNDS)
    for step in BESIDE:
        view = made.step(step, last)
        if view is not last:
            made.chain(view, 1)
    return tuple(made.views)


class _Made:
    """The views made so far, within what one text may have."""

    def __init__(self, text: str) -> None:
        self.views = [View("raw", text)]
        self._left = (TOTAL - 1) * len(text) + TOTAL_FREE
        self._splitter = Splitter()
        self._hints = HINTS.of(text)
        self._hints_of = self.views[0]

    def chain(self, view: View, rounds: int) -> View:
        """The newest view of the chain that begins with `view`: at the latest when every step has looked at it in vain."""
        vain = 0
        for step in CHAIN * rounds:
            made = self.step(step, view)
            vain = vain + 1 if made is view else 0
            view = made
            if vain == len(CHAIN):
                break
        return view

    def step(self, step: str, view: View) -> View:
        """The view that `step` makes of `view`, or `view` itself: nothing to change, or the text has had its share."""
        if view is not self._hints_of:
            self._hints, self._hints_of = HINTS.of(view.text), view
        if len(self.views) == VIEWS_MAX or self._hints.isdisjoint(NEEDS[step]):
            return view
        made = rewritten(step, view, STEPS[step](view.text, self._hints, self._splitter), step in EVEN)
        if made is None or len(made.text) > self._left:
            return view
        self._left -= len(made.text)
        self.views.append(made)
        return made


def newest(made: Sequence[View]) -> View:
    """The last view of the chain: everything undone that was found to undo, but for rot13 and reversal."""
    aside = next((at for at, view in enumerate(made) if view.kind in BESIDE), len(made))
    return made[aside - 1]
