"""The texts benchmarks run on: the frozen corpus where it is, else the bundled one."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

ROOT = Path(__file__).resolve().parent.parent
FROZEN = ROOT.parent / "shared" / "bench" / "texts.jsonl"
BUNDLED = ROOT / "tests" / "data" / "detection_texts.txt"
"""One text a line, with \\n and \\t written out."""


UNCACHED = {"VEIL_CACHE": "off", **os.environ}
"""Environment of a stack whose detection is measured: texts that come again would be answered from the cache."""


def corpus_path() -> Path:
    """VEIL_BENCH_CORPUS, else the frozen corpus beside the checkout, else the bundled one.

    JSON Lines with `text`, or .txt: a text a line.
    """
    named = os.environ.get("VEIL_BENCH_CORPUS")
    if named:
        return Path(named)
    return FROZEN if FROZEN.exists() else BUNDLED


def texts(count: int) -> list[str]:
    """`count` texts; a corpus that is shorter is gone through again."""
    lines = [line for line in corpus_path().read_text(encoding="utf-8").split("\n") if line.strip()]
    if corpus_path().suffix == ".jsonl":
        found = [orjson.loads(line)["text"] for line in lines]
    else:
        found = [line.replace("\\n", "\n").replace("\\t", "\t") for line in lines]
    return [found[i % len(found)] for i in range(count)]
