"""`make bench-threats`: what rules and model find of attacks they were not made for, and what they cost.

Each family of the development sets is left out once: a model is trained without it and its near-duplicates, calibrated on the
others' texts, and judges it. (The rules are not made anew: whoever wrote them had seen these sets; `--no-rules` leaves them out.)
Macro recall is the mean over the families with attacks; false alarms are counted over all harmless texts. Eleven fits, about five
minutes on one core that is free; it ends by itself. Cost is that of the model that ships, on one thread.

`cache_hit` is the share of records answered by the result cache on traffic that repeats as bench/cache.py says.
Last line: `threats: review_recall=… review_fpr=… block_recall=… block_fpr=… p95_us=… cache_hit=…`
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.cache import hit_rate
from bench.threats_corpus import DATA, HARD, MADE, Example, load
from bench.threats_fit import matrix
from bench.threats_folds import Reading, left_out, read
from bench.threats_report import Rate, macro, macro_interval, table
from bench.threats_training import calibrate
from veilstream.detection.model import DetectionConfig, TextField
from veilstream.detection.threats import load_threats
from veilstream.detection.threats.features import load_features
from veilstream.policy.document import ModeThresholds

CHARACTERS: Final = 1_000
"""Of the texts whose cost is measured."""
LONG: Final = 100_000
ROUNDS: Final = 5
"""Times each text is judged; its least time counts, so that what else the machine does is left out."""


@dataclass(frozen=True, slots=True)
class Tier:
    """What one threshold catches, by family."""

    caught: dict[str, Rate]
    alarms: dict[str, Rate]

    def all_alarms(self) -> Rate:
        """Over all harmless texts."""
        return Rate(sum(r.hits for r in self.alarms.values()), sum(r.of for r in self.alarms.values()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--no-rules", action="store_true", help="the model alone")
    arguments = parser.parse_args()
    examples, features = load(arguments.data), load_features()
    print(f"{len(examples)} texts", flush=True)
    readings = read(examples, features)
    data = matrix([reading.bags[0] for reading in readings], [e.label for e in examples])
    values = left_out(examples, readings, data, features)
    if arguments.no_rules:
        readings = [replace(reading, rules=()) for reading in readings]
    scores = judged(examples, readings, values)
    moderate = ModeThresholds().moderate
    review, block = tier(examples, scores, moderate.review), tier(examples, scores, moderate.block)
    print(table("attacks, recall", review.caught, block.caught))
    print(table("harmless, false alarms", review.alarms, block.alarms))
    _modes(examples, scores)
    _curve(examples, scores)
    for name, each in (("review", review), ("block", block)):
        _summary(name, each)
    p95_us = cost([example.text for example in examples])
    print(
        f"threats: review_recall={macro(list(review.caught.values())):.3f} review_fpr={review.all_alarms().share:.4f} "
        f"block_recall={macro(list(block.caught.values())):.3f} block_fpr={block.all_alarms().share:.4f} "
        f"p95_us={p95_us:.0f} cache_hit={hit_rate() / 100:.3f}"
    )


def judged(
    examples: Sequence[Example], readings: Sequence[Reading], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The score of each text that is measured, calibrated without its family; NaN for the others."""
    families = np.array([e.family for e in examples])
    scores = np.full(len(examples), np.nan)
    for family in sorted(set(families.tolist()) - MADE):
        calibration = calibrate(examples, readings, values, families != family)
        for place in np.flatnonzero(families == family):
            scores[place] = calibration.score(calibration.value(float(values[place]), readings[place].rules))
    return scores


def tier(examples: Sequence[Example], scores: npt.NDArray[np.float64], threshold: float) -> Tier:
    """Recall and false alarms by family at a threshold."""
    counts: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
    for example, score in zip(examples, scores, strict=True):
        if not np.isnan(score):
            counts[example.label].setdefault(example.family, []).append(int(score >= threshold))
    alarms, caught = ({family: Rate(sum(hits), len(hits)) for family, hits in of.items()} for of in counts)
    return Tier(caught, alarms)


def _summary(name: str, each: Tier) -> None:
    caught = list(each.caught.values())
    low, high = macro_interval(caught)
    print(f"{name}: macro recall {macro(caught):.3f} [{low:.3f}, {high:.3f}]; false alarms {each.all_alarms()}")
    hard = sorted(HARD & each.alarms.keys())
    print("  hard harmless sets: " + ", ".join(f"{family} {each.alarms[family]}" for family in hard))


def _modes(examples: Sequence[Example], scores: npt.NDArray[np.float64]) -> None:
    print(f"{'modes':24}{'review: recall, alarms':34}block: recall, alarms")
    for mode, pair in ModeThresholds():
        tiers = [tier(examples, scores, threshold) for threshold in (pair.review, pair.block)]
        shown = [f"{macro(list(t.caught.values())):.3f}, {t.all_alarms().share:.4f}" for t in tiers]
        print(f"  {mode:22}{shown[0]:34}{shown[1]}")


def _curve(examples: Sequence[Example], scores: npt.NDArray[np.float64]) -> None:
    print("trade-off (false alarms → macro recall): ", end="")
    points = [tier(examples, scores, threshold) for threshold in (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)]
    print(", ".join(f"{t.all_alarms().share:.4f} → {macro(list(t.caught.values())):.3f}" for t in points))


def cost(texts: Sequence[str]) -> float:
    """µs of rules and model together for a text of CHARACTERS characters: the 95th percentile; prints more."""
    threats, config = load_threats(), DetectionConfig()
    long = [text[:CHARACTERS] for text in texts if len(text) >= CHARACTERS][:400]
    short = [text for text in texts if 20 <= len(text) <= 200][:2000:5]

    def least(text: str) -> float:
        times = []
        for _ in range(ROUNDS):
            begun = time.process_time()
            threats.scan([(TextField("text", text), config)])
            times.append(time.process_time() - begun)
        return min(times) * 1e6

    for text in long[:20]:
        least(text)
    of_long, of_short = sorted(map(least, long)), sorted(map(least, short))
    page = " ".join(long)
    hundred, ten = (least((page * (LONG // len(page) + 1))[:size]) for size in (LONG, LONG // 10))
    p95 = of_long[int(0.95 * len(of_long))]
    print(f"µs per text, rules and model: {CHARACTERS} characters p50 {of_long[len(of_long) // 2]:.0f}, p95 {p95:.0f}")
    print(f"  short texts p50 {of_short[len(of_short) // 2]:.0f}, p95 {of_short[int(0.95 * len(of_short))]:.0f}")
    print(f"  {LONG // 10} characters {ten:.0f}, {LONG} characters {hundred:.0f}")
    return p95


if __name__ == "__main__":
    main()
