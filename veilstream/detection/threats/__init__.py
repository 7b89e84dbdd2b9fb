"""Threats: what in a text tries to take over a language model.

Rules as data (`rules.yaml`, the place to add one), read by `rules.py`, applied by `scan.py` to the views of `folding/`; a
linear model (`features.py`, `concepts.yaml`, `linear.py`, its weights `linear.npz`); `score.py` makes one score of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veilstream.detection.threats.score import Threats


def load_threats() -> Threats:
    """Rules, model and calibration of this release. Raises `ConfigError` when one of their files is wrong."""
    from veilstream.detection.threats.features import load_features
    from veilstream.detection.threats.linear import load_model
    from veilstream.detection.threats.rules import load_rules
    from veilstream.detection.threats.scan import ThreatScan
    from veilstream.detection.threats.score import Threats, load_calibration

    return Threats(ThreatScan(load_rules()), load_model(load_features()), load_calibration())
