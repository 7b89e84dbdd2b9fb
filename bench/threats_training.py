"""`make train-threats`: trains the linear threat model anew, and writes its weights and calibration into the package.

    python -m bench.threats_training [--data FOLDER]

Deterministic: the same data, packages and code give the same bytes on the same kind of processor. One core, some ten minutes:
first each family is left out once (`bench/threats.py` says what for), and what the models so made say of texts that they never
saw gives the calibration; then all families train the model that ships.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.threats_corpus import DATA, EVALUATE_ONLY, MADE, Example, load
from bench.threats_fit import fit, matrix, without
from bench.threats_folds import Reading, left_out, read
from veilstream.detection.threats.features import load_features
from veilstream.detection.threats.linear import WEIGHTS, quantized, save_model
from veilstream.detection.threats.score import CALIBRATION, SCALE, Calibration

PER_FAMILY: Final = 400
"""Harmless texts of one family in the calibration, at most: no single source decides what a false alarm is."""
ANY_RULE: Final = 3.0
PER_LOGIT: Final = 0.7
"""What a matching rule adds. Chosen, not fitted: the rules' writer knew these sets, so that on them rules are hardly ever
wrong, and a fit would let any rule block by itself. So a rule of .9 lifts a text that is harmless to the model up to the
threshold for review, and one that the model doubts above that for block."""


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    features = load_features()
    examples = load(arguments.data)
    print(f"{len(examples)} texts", flush=True)
    readings = read(examples, features)
    data = matrix([reading.bags[0] for reading in readings], [e.label for e in examples])
    values = left_out(examples, readings, data, features)
    calibration = calibrate(examples, readings, values, np.ones(len(examples), dtype=bool))
    chosen = without(examples, (), EVALUATE_ONLY)
    tables, bias = fit(data, examples, chosen)
    save_model(quantized(tables, bias, features))
    content = {"any_rule": calibration.any_rule, "per_logit": calibration.per_logit, "values": list(calibration.values)}
    CALIBRATION.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{WEIGHTS.name}: {WEIGHTS.stat().st_size / 1e6:.2f} MB; {CALIBRATION.name}: {content}")


def calibrate(
    examples: Sequence[Example],
    readings: Sequence[Reading],
    values: npt.NDArray[np.float64],
    chosen: npt.NDArray[np.bool_],
) -> Calibration:
    """The value from which each score of SCALE holds, from texts whose family the model never saw.

    `values`: the model's, of each text by the fold that leaves its family out. `chosen`: texts it may be made of.
    """
    measured = np.array([e.family not in MADE | EVALUATE_ONLY for e in examples]) & chosen
    joint = Calibration(ANY_RULE, PER_LOGIT, tuple(range(len(SCALE))))
    joined = np.array([joint.value(value, reading.rules) for value, reading in zip(values, readings, strict=True)])
    by_family: dict[str, list[float]] = {}
    for example, value, take in zip(examples, joined, measured, strict=True):
        if take and not example.label:
            by_family.setdefault(example.family, []).append(value)
    value_at, weight_at = [], []
    for theirs in by_family.values():
        value_at += theirs
        weight_at += [min(len(theirs), PER_FAMILY) / len(theirs)] * len(theirs)
    order = np.argsort(value_at)
    above = 1 - np.cumsum(np.array(weight_at)[order]) / np.sum(weight_at)
    points = [float(np.array(value_at)[order][np.argmax(above <= share)]) for _, share in SCALE]
    for number in range(1, len(points)):  # few texts are as sure as the last points: they may fall on one value
        points[number] = max(points[number], points[number - 1] + 0.05)
    return Calibration(ANY_RULE, PER_LOGIT, tuple(round(point, 4) for point in points))


if __name__ == "__main__":
    main()
