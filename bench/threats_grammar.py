"""Texts made from `threats_data/grammar.yaml`: what attacks have in common, and harmless texts that sound like them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, Final

import yaml

GRAMMAR: Final = Path(__file__).parent / "threats_data" / "grammar.yaml"
EACH: Final = 40
"""Texts of one template, at most."""
DOCUMENTS: Final = 1000
"""Longer texts of each label, of several pieces."""
LABELS: Final = (
    "",
    "",
    "",
    "User: ",
    "Assistant: ",
    "[Note] ",
    "- ",
    "* ",
    "1. ",
    "From: ",
    "# ",
    "> ",
    "[SMS] ",
    "Me: ",
    "Q: ",
    "A: ",
)
"""Before the pieces of a longer text, in both kinds alike, so that none of them is a sign."""
_CHOICE: Final = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_SLOT: Final = re.compile(r"\{(\w+)\}")


def made(seed: int = 7) -> list[tuple[str, int]]:
    """Texts and their labels (1: attack), the same for the same seed."""
    grammar = yaml.safe_load(GRAMMAR.read_text(encoding="utf-8"))
    chance = random.Random(seed)
    attacks = _texts(grammar["attack"], grammar["slots"], chance)
    harmless = _texts(grammar["harmless"], grammar["slots"], chance)
    found = [(text, 1) for text in attacks] + [(text, 0) for text in harmless]
    for label, number in ((0, DOCUMENTS), (1, DOCUMENTS // 2)):
        for _ in range(number):
            pieces = [chance.choice(harmless) for _ in range(chance.randint(2, 14))]
            if label:
                pieces.insert(chance.randint(0, len(pieces)), chance.choice(attacks))
            found.append((_joined(pieces, chance), label))
    return found


def _texts(templates: list[str], slots: dict[str, list[str]], chance: random.Random) -> list[str]:
    texts: dict[str, None] = {}
    for template in templates:
        mine: set[str] = set()
        for _ in range(3 * EACH):
            text = _cased(re.sub(" +", " ", _filled(template, slots, chance)).strip(), chance)
            if len(mine) < EACH and text not in mine:
                mine.add(text)
                texts[text] = None
    return list(texts)


def _filled(template: str, slots: dict[str, list[str]], chance: random.Random) -> str:
    text = template.replace("{{", "\x01").replace("}}", "\x02")
    while (choice := _CHOICE.search(text)) is not None:
        text = text[: choice.start()] + chance.choice(choice[1].split("|")) + text[choice.end() :]

    def fill(slot: re.Match[str]) -> str:
        return _filled(chance.choice(slots[slot[1]]), slots, chance)

    return _SLOT.sub(fill, text).replace("\x01", "{").replace("\x02", "}")


def _cased(text: str, chance: random.Random) -> str:
    """Most texts begin with a capital, some are capitals throughout."""
    kind = chance.random()
    if kind < 0.06:
        return text.upper()
    return text[:1].upper() + text[1:] if kind < 0.6 else text


def _joined(pieces: list[str], chance: random.Random) -> str:
    between: Any = chance.choice((" ", " ", "\n", "\n\n"))
    labels = chance.sample(LABELS, 3)
    labelled = between != " " and chance.random() < 0.6
    return between.join((chance.choice(labels) if labelled else "") + piece for piece in pieces)
