"""The texts benchmarks run on: the frozen corpus where it is, else the bundled one."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

ROOT = Path(__file__).resolve().parent.parent
FROZEN = ROOT.parent / "shared" / "bench" / "texts.jsonl"
BUNDLED = ROOT / "tests" / "data" / "detection_texts.txt"


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
    path = corpus_path()
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    found = [line.decode() if path.suffix == ".txt" else orjson.loads(line)["text"] for line in lines]
    return [found[i % len(found)] for i in range(count)]
