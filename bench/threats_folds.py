"""Leave one family out: what models say of texts whose family, near-duplicates included, they never saw."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.threats_corpus import EVALUATE_ONLY, MADE, Example
from bench.threats_fit import Matrix, fit, without
from veilstream.detection.model import DetectionConfig, TextField
from veilstream.detection.threats.features import Bag, Features
from veilstream.detection.threats.folding import views
from veilstream.detection.threats.linear import LinearModel, quantized
from veilstream.detection.threats.rules import FORMAT, load_rules
from veilstream.detection.threats.scan import ThreatScan
from veilstream.detection.threats.score import seen_by_model

TOGETHER: Final = {
    "yanismiraoui": "gpteacher_roleplay", "wild": "awesome_prompts", "pyrit_templates": "selfinstruct_user",
    "sysprompt": "mitre_frr", "giskard": "wikigold_en", "bastioncorpus": "broad_twitter", "llamator": "sec_filings_test",
    "jbcorpusmini": "lifebench", "injecguard_valid": "nannigalaxy_nano",
}  # fmt: skip
"""A family with attacks → one without, left out in the same fold: to spare time. A fold so has less to learn from."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One text as model and rules take it."""

    bags: tuple[Bag, ...]
    """Of the raw text, and of the other views the model looks at."""
    rules: tuple[float, ...]
    """Confidences of the rules that match."""


def read(examples: Sequence[Example], features: Features) -> list[Reading]:
    """Views, features and rule hits of every text: what no fold changes."""
    scan, config = ThreatScan(load_rules()), DetectionConfig(format_check=False)
    readings = []
    for example in examples:
        made = views(example.text)
        hits = {
            hit.rule: hit.confidence
            for hit in scan.scan(TextField("text", example.text), config, made)
            if hit.category != FORMAT
        }
        bags = tuple(features.read([view.text]) for view in seen_by_model(made))
        readings.append(Reading(bags, tuple(hits.values())))
    return readings


def folds(examples: Sequence[Example]) -> list[tuple[str, ...]]:
    """The families that are left out together."""
    families = {e.family for e in examples} - MADE - EVALUATE_ONLY
    alone = sorted(families - set(TOGETHER.values()))
    return [(family, *families & {TOGETHER.get(family, "")}) for family in alone]


def left_out(
    examples: Sequence[Example], readings: Sequence[Reading], data: Matrix, features: Features
) -> npt.NDArray[np.float64]:
    """The model's value of each text, by the fold that leaves its family out; sets that nothing trains on, by the first."""
    values = np.zeros(len(examples))
    for number, out in enumerate(folds(examples)):
        begun = time.monotonic()
        tables, bias = fit(data, examples, without(examples, out, EVALUATE_ONLY))
        model = quantized(tables, bias, features)
        judged: Collection[str] = {*out, *(EVALUATE_ONLY if number == 0 else ())}
        for place, example in enumerate(examples):
            if example.family in judged:
                values[place] = worst(model, readings[place])
        print(f"  without {' and '.join(out)}: {time.monotonic() - begun:.0f} s", flush=True)
    return values


def worst(model: LinearModel, reading: Reading) -> float:
    """The model's value of the worst view."""
    return max(judged.value for bag in reading.bags for judged in model.judge_bag(bag))
