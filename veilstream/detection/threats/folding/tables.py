"""Writes the two tables beside this file: `python -m veilstream.detection.threats.folding.tables CONFUSABLES TEXTS…`.

CONFUSABLES is `confusables.json` of the package confusable-homoglyphs (MIT), which is the Unicode consortium's
confusables.txt (Unicode License v3) as JSON: character → [{"c": looks like}]. TEXTS are JSON Lines with `text` and
`label`; the permissively licensed sets of docs/threats.md. What is written is small, sorted and read by `characters.py`
and `words.py`; run it again only for a new version of Unicode or to take up more languages.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
LETTER: Final = re.compile(
    r"(?:LATIN (?:SMALL|CAPITAL) LETTER|LATIN LETTER SMALL CAPITAL|LATIN SMALL LETTER TURNED|"
    r"NEGATIVE (?:CIRCLED|SQUARED) LATIN CAPITAL LETTER|REGIONAL INDICATOR SYMBOL LETTER) "
    r"([A-Z])(?: WITH .*)?"
)
"""Names of characters that are a Latin letter in another dress and that NFKC leaves as they are."""
BY_EYE: Final = {
    source: target
    for target, sources in {
        "e": "€εɛєԑǝ", "c": "¢", "y": "¥", "s": "§ſ", "i": "¡ı", "n": "ηп", "w": "ω", "m": "м", "t": "т", "k": "к",
        "b": "в", "h": "н", "u": "μµ", "a": "∂", '"': "“”«»„", "'": "‘’‚", "-": "–—―", " ": "\u00a0\u3000\u1680",
    }.items()
    for source in sources
}  # fmt: skip
"""What a reader takes for a letter and the consortium does not, or not for this one."""
OWN_SCRIPTS: Final = ("CJK ", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "ARABIC", "HEBREW")
"""Their letters are read as themselves: nobody spells a Latin word with them."""
WORD: Final = re.compile(r"[^\W\d_]+")
WORDS: Final = 8000


def confusables(source: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """Character → the ASCII character it looks like, of what NFKC does not make ASCII anyway."""
    found = dict(BY_EYE)
    for code in range(0x80, 0x1F200):
        match = LETTER.fullmatch(unicodedata.name(chr(code), ""))
        if match:
            found.setdefault(chr(code), match[1].lower())
    for _ in range(2):  # twice: some look like a small capital, which looks like a letter
        for character, like in source.items():
            if len(character) != 1 or character.isascii() or character in found or _own_script(character):
                continue
            for entry in like:
                target = _target(character, found.get(entry["c"], entry["c"]))
                if target:
                    found[character] = target
                    break
    return {c: t for c, t in found.items() if not unicodedata.normalize("NFKC", c).isascii() or c in BY_EYE}


def _own_script(character: str) -> bool:
    return unicodedata.name(character, "CJK ").startswith(OWN_SCRIPTS)


def _target(character: str, target: str) -> str | None:
    """The consortium writes I as l and m as rn, its prototypes; a reader takes the letter."""
    if target == "rn":
        return "m"
    if len(target) != 1 or not target.isascii() or not target.isprintable() or target == " ":
        return None
    return "I" if target == "l" and unicodedata.category(character) == "Lu" else target


def words(rows: Iterable[tuple[str, bool]]) -> list[str]:
    """The commonest words by number of texts. A spelling that is another's rot13 or reversal is an attack's, not a word."""
    count: Counter[str] = Counter()
    attacks: Counter[str] = Counter()
    for text, attack in rows:
        (attacks if attack else count).update({word.lower() for word in WORD.findall(text)})
    for word, times in attacks.items():  # attacks also hold torn words: these are short, or rare
        if times >= 4 and (count[word] or len(word) > 6 or times >= 40):
            count[word] += times
    kept = [(word, times) for word, times in count.items() if times >= 3 and (len(word) > 1 or word in "ai")]
    common = dict(kept)
    genuine = [
        (word, times)
        for word, times in kept
        if common.get(_rot13(word), 0) < 2 * times and (len(word) < 4 or common.get(word[::-1], 0) < 2 * times)
    ]
    return [word for word, _ in sorted(genuine, key=lambda item: (-item[1], item[0]))[:WORDS]]


def _rot13(word: str) -> str:
    return "".join(chr((ord(c) - 97 + 13) % 26 + 97) if "a" <= c <= "z" else c for c in word)


def main() -> None:
    """Write both tables."""
    table = confusables(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    lines = [
        f"{target}\t{''.join(sorted(c for c in table if table[c] == target))}" for target in sorted(set(table.values()))
    ]
    (HERE / "confusables.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = (
        json.loads(line) for name in sys.argv[2:] for line in Path(name).read_text(encoding="utf-8").split("\n") if line
    )
    found = words((row["text"], bool(row["label"])) for row in rows)
    (HERE / "words.txt").write_text("\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
