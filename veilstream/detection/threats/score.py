"""One score for a text from all that was seen in it: rules that match, and the linear model, over its folded views.

The score is calibrated by false alarms: `SCALE` says for each score how many harmless texts of unseen families reach it,
so that a policy's thresholds keep their meaning when rules or weights change. Its strongest threat carries the score of the text.

Who wrote a text matters. What a system message says are the operator's orders, and no attack. What a tool answered or a
document holds is material: an order to the model has no business there and weighs more than in a user's own words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from veilstream.contracts.errors import ConfigError
from veilstream.detection.model import DetectionConfig, TextField, Threat
from veilstream.detection.threats.advice import advise
from veilstream.detection.threats.folding import View, newest, views
from veilstream.detection.threats.linear import LinearModel
from veilstream.detection.threats.rules import FORMAT
from veilstream.detection.threats.scan import ThreatScan, encodable
from veilstream.detection.threats.tokens import plain

SOURCE: Final = "model"
RULE: Final = "model.linear"
CATEGORY: Final = "prompt_attack"
"""What the model finds where no rule says more."""
CALIBRATION: Final = Path(__file__).with_name("calibration.json")
REPORTED: Final = 0.2
"""Least score for which the model names a stretch: below every threshold that a policy has by default."""
SCALE: Final = (
    (0.2, 0.10),
    (0.3, 0.05),
    (0.5, 0.018),
    (0.6, 0.01),
    (0.7, 0.006),
    (0.8, 0.003),
    (0.95, 0.001),
    (0.99, 0.0003),
)
"""Score, and the share of harmless texts of families unseen in training that reaches it."""
OPERATORS: Final = frozenset({"system", "developer"})
"""Roles whose messages are the operator's."""
MATERIAL: Final = frozenset({"tool", "function"})
"""Roles whose messages are what a program brought in."""
MATERIAL_SHIFT: Final = 0.35
"""Added to the value of such texts, and of documents: some two fifths more of the harmless ones reach a threshold by it."""
LAST_OF_PLANE: Final = "\uffff"
"""The model reads letters beyond the basic plane (mathematical ones, tags) only once they are folded."""
TURNING: Final = frozenset("\u202a\u202b\u202d\u202e\u2066\u2067\u2068")
"""Marks that turn the direction of what follows: the folded view has it as it is read."""
SCRIPT_SHARE: Final = 8
"""A text of which one character in so many was made Latin is written in another script."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """From the model's value and the rules to a score; made by bench/threats_training.py."""

    any_rule: float
    """What a matching rule adds to the value."""
    per_logit: float
    """What each unit of log-odds of the rules' joint confidence adds."""
    values: tuple[float, ...]
    """Of each score of SCALE, the value it begins at; ascending."""

    def value(self, model: float, confidences: Sequence[float]) -> float:
        """The joint value of the model's and the confidences of the rules that match, each rule once."""
        if not confidences:
            return model
        doubt = max(1e-4, math.prod(1 - confidence for confidence in confidences))
        return model + self.any_rule + self.per_logit * math.log((1 - doubt) / doubt)

    def score(self, value: float) -> float:
        """0 to 1, rising with the value: straight between the points of SCALE, falling off beyond them."""
        scores = [score for score, _ in SCALE]
        if value <= self.values[0]:
            return scores[0] * math.exp(value - self.values[0])
        if value >= self.values[-1]:
            return 1 - (1 - scores[-1]) * math.exp(self.values[-1] - value)
        above = next(n for n, point in enumerate(self.values) if value < point)
        share = (value - self.values[above - 1]) / (self.values[above] - self.values[above - 1])
        return scores[above - 1] + share * (scores[above] - scores[above - 1])


def load_calibration(file: Path = CALIBRATION) -> Calibration:
    """The calibration in `file`. Raises `ConfigError` that names it."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        made = Calibration(
            float(content["any_rule"]), float(content["per_logit"]), tuple(map(float, content["values"]))
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} holds no calibration of threat scores: {error}") from error
    if len(made.values) != len(SCALE) or any(a >= b for a, b in zip(made.values, made.values[1:], strict=False)):
        raise ConfigError(f"{file} must have {len(SCALE)} ascending values, one for each point of the scale")
    return made


@dataclass(frozen=True, slots=True)
class Threats:
    """Rules and model of one process."""

    rules: ThreatScan
    model: LinearModel
    calibration: Calibration

    def scan(self, asked: Sequence[tuple[TextField, DetectionConfig]]) -> list[tuple[Threat, ...]]:
        """The threats in each text: the rules' in their order, then the model's. None is surer than the text's score.

        What texts are asked together changes nothing but the time: the model reads all of them in one go.
        """
        looked = [self._look(text, config) for text, config in asked]
        seen = [(number, view) for number, one in enumerate(looked) for view in one.seen]
        worst = [(-math.inf, 0, 0)] * len(looked)
        for (number, view), judged in zip(seen, self.model.judge([view.text for _, view in seen]), strict=True):
            if judged.value > worst[number][0]:
                place = view.original(judged.start, judged.end) if judged.start < judged.end else (0, 0)
                worst[number] = (judged.value, *place)
        return [self._threats(one, *judged) for one, judged in zip(looked, worst, strict=True)]

    def _look(self, text: TextField, config: DetectionConfig) -> _Looked:
        """What rules and format check find, and the views that the model is to judge."""
        if text.role in OPERATORS:
            config = replace(config, threats=False)
        if not text.text or not (config.threats or config.format_check):
            return _Looked(text)
        text = replace(text, text=encodable(text.text))
        made = views(text.text) if config.threats else (View("raw", text.text),)
        found = self.rules.scan(text, config, made)
        return _Looked(
            text,
            markup=tuple(threat for threat in found if threat.category == FORMAT),
            hits=tuple(threat for threat in found if threat.category != FORMAT),
            advice=tuple(advise(text)) if config.format_check else (),
            seen=tuple(seen_by_model(made)) if config.threats else (),
        )

    def _threats(self, looked: _Looked, value: float, start: int, end: int) -> tuple[Threat, ...]:
        """`value`: the model's for the worst of the views, and the stretch of the text that weighs most there."""
        hits = looked.hits
        if not looked.seen:
            return (*looked.markup, *looked.advice)
        value = self.calibration.value(value, list({hit.rule: hit.confidence for hit in hits}.values()))
        if is_material(looked.text):
            value += MATERIAL_SHIFT
        score = round(self.calibration.score(value), 6)
        threats = tuple(replace(hit, confidence=min(hit.confidence, score)) for hit in hits)
        if score >= REPORTED and start < end:
            category = max(hits, key=lambda hit: hit.confidence).category if hits else CATEGORY
            threats = (*threats, Threat(category, looked.text.path, start, end, score, SOURCE, RULE))
        return (*looked.markup, *threats, *looked.advice)


@dataclass(frozen=True, slots=True)
class _Looked:
    """A text that was looked at, but for the model."""

    text: TextField
    markup: tuple[Threat, ...] = ()
    hits: tuple[Threat, ...] = ()
    """What the rules of threats say."""
    advice: tuple[Threat, ...] = ()
    seen: tuple[View, ...] = ()
    """For the model; none where threats are not asked for."""


def seen_by_model(made: Sequence[View]) -> list[View]:
    """The views the model looks at: the newest of the chain if it tells the model more, else the raw text; and those beside it.

    Where much was made Latin the raw text is looked at too: it is in another script, and its words are no disguise.
    """
    last = made.index(newest(made))
    chain = made[1 : last + 1]
    if not any(_tells_more(view) for view in chain):
        chosen = [made[0]]
    elif any(_is_of_another_script(view) for view in chain):
        chosen = [made[0], made[last]]
    else:
        chosen = [made[last]]
    return [*chosen, *made[last + 1 :]]


def _tells_more(view: View) -> bool:
    """Whether the model reads `view` and its parent differently: it takes accents, wide forms and invisible marks away itself."""
    if view.parent is None or view.kind == "tidy":
        return False
    before, after = view.parent.text, view.text
    if view.kind == "plain":
        return max(before) > LAST_OF_PLANE or not TURNING.isdisjoint(before)
    if view.kind == "latin" and len(before) == len(after):
        changed = {pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]}
        return any(old.isalpha() and plain(old) != new.lower() for old, new in changed)
    return True


def _is_of_another_script(view: View) -> bool:
    """Whether making it Latin changed much of the text."""
    if view.parent is None or view.kind != "latin":
        return False
    changed = sum(old != new for old, new in zip(view.parent.text, view.text, strict=False))
    return SCRIPT_SHARE * changed > len(view.text)


def is_material(text: TextField) -> bool:
    """Whether the text is what a program brought in: a tool's answer, or a text of a document."""
    return text.role in MATERIAL or text.path.startswith("document")
