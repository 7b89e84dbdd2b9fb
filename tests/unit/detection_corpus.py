"""Texts that the detection tests share."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from veilstream.detection.model import DetectionConfig, DetectionRequest, TextField

HERE = Path(__file__).resolve()
BUNDLED = HERE.parents[1] / "data" / "detection_texts.txt"
BENCH = Path(os.environ.get("VEIL_BENCH_TEXTS", HERE.parents[3] / "shared" / "bench" / "texts.jsonl"))
BENCH_SAMPLE = 60
"""Texts of the benchmark corpus that are compared too, where it is there: a stride through it, so all kinds occur."""


@cache
def texts() -> tuple[str, ...]:
    """The bundled texts (one a line; \\n, \\t and \\u escapes), and a sample of the benchmark corpus where it is there."""
    return (*bundled(), *_bench())


def bundled() -> list[str]:
    """The texts that come with the repository."""
    lines = BUNDLED.read_text(encoding="utf-8").split("\n")[:-1]
    return [line.replace("\\n", "\n").replace("\\t", "\t").replace("\\u00fc", "ü") for line in lines]


def _bench() -> list[str]:
    if not BENCH.exists():
        return []
    lines = BENCH.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:: max(1, len(lines) // BENCH_SAMPLE)]]


def request(*texts: str, path: str = "text", **config: object) -> DetectionRequest:
    """A request with one field for each text and a configuration from keywords."""
    return DetectionRequest(
        tuple(TextField(path, text) for text in texts),
        DetectionConfig(**config),  # type: ignore[arg-type]
    )
