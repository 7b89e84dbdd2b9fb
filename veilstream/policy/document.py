"""A policy as users write it: which entities to look for, what to do with each, and when to block or review.

`parse_policy` checks it at the edge; from there on it is a frozen `Policy`. Its digest is the SHA-256 of its canonical JSON
(RFC 8785) with every default written out, so that two ways of writing the same policy have one digest, and a stored
version keeps its meaning when a later release has other defaults.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import rfc8785
from pydantic import AfterValidator, Field, model_validator
from pydantic import Strict as StrictType

from veilstream.contracts.errors import ConfigError, RecordError
from veilstream.policy.actions import ACTION_NAMES, Action, Replace, Text
from veilstream.policy.edge import Strict, checked, form, read_json, read_yaml
from veilstream.policy.llm import OFF, LlmPart
from veilstream.policy.recognizers import AllowList, Entity, Recognizers, refuse_too_many
from veilstream.policy.version import POLICY_ID_FORM, VERSION_FORM, is_policy_id, is_version

DEFAULT = "default"
POLICIES = Path(__file__).parent
"""Folder of the policies that come with Veilstream."""
DOCUMENT_BYTES_MAX = 256 << 10
"""A version travels in one record of veil.state and in one answer to `policy.show`, both at most 1 MiB."""
INVALID = "invalid_policy"
Mode = Literal["strict", "moderate", "permissive"]
_MODES: tuple[Mode, ...] = get_args(Mode)
"""The strictest first."""


def _policy_id(value: str) -> str:
    if not is_policy_id(value):
        raise form(POLICY_ID_FORM)
    return value


def _version(value: str) -> str:
    if not is_version(value):
        raise form(VERSION_FORM)
    return value


def _language(value: str) -> str:
    if value != "detect" and not re.fullmatch("[a-z]{2}", value):
        raise form("a language code of two letters, as en, or detect")
    return value


def _as_set(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


PolicyId = Annotated[str, AfterValidator(_policy_id)]
VersionText = Annotated[str, AfterValidator(_version)]
Entities = Annotated[tuple[Entity, ...], StrictType(False), Field(max_length=500), AfterValidator(_as_set)]
"""A set of entity names: sorted, so that their order in the file changes no digest."""
Confidence = Annotated[float, Field(ge=0, le=1)]


class DetectionPart(Strict):
    """What to look for."""

    language: Annotated[str, AfterValidator(_language)] = "en"
    entities: Entities | None = None
    """None: all that the engine knows, own recognizers too; empty: no search for PII."""
    profile: Literal["parity", "fast", "accurate"] = "parity"
    """How PII is searched: `parity` as Presidio does, `fast` without its NLP model, so names and places are not found,
    `accurate` with a second model for persons and places."""
    score_threshold: Confidence = 0.35
    threats: bool = True
    cache: bool = True
    """Whether answers may be kept for a while and given again to the same text (docs/cache.md)."""
    mode: Mode = "moderate"
    unnamed_fields: Literal["judged", "trusted"] = "judged"
    """Of a document with `text_fields`: whether the fields it does not name are judged too. A sender may not decide that."""
    recognizers: Annotated[Recognizers, AfterValidator(refuse_too_many)] = ()
    """The tenant's own, beside the engine's, in every profile."""
    allow_list: AllowList = ()
    """Values that are no finding."""
    llm: LlmPart = OFF
    """The LLM classifier: off unless it names providers."""

    @model_validator(mode="after")
    def _llm_judges_threats(self) -> Self:
        if self.llm.providers and not self.threats:
            raise form("a policy that names detection.llm.providers only with detection.threats: true")
        return self


class Thresholds(Strict):
    """From which confidence of the surest threat on a record is for review, or blocked."""

    review: Confidence
    block: Confidence

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.review > self.block:
            raise form("a pair with review at most block")
        return self


class ModeThresholds(Strict):
    """Thresholds by mode; a stricter mode never has a higher one, since a request may ask for a stricter mode."""

    strict: Thresholds = Thresholds(review=0.3, block=0.6)
    moderate: Thresholds = Thresholds(review=0.5, block=0.8)
    permissive: Thresholds = Thresholds(review=0.7, block=0.95)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        rows = (self.strict, self.moderate, self.permissive)
        for values in ([row.review for row in rows], [row.block for row in rows]):
            if values != sorted(values):
                raise form("thresholds with strict at most moderate at most permissive, for review and for block")
        return self


class DecisionPart(Strict):
    """When a record is blocked or for review; everything else is allowed, with its actions applied."""

    thresholds: ModeThresholds = ModeThresholds()
    block_entities: Entities = ()
    review_entities: Entities = ()


class Policy(Strict):
    """One version of a policy."""

    id: PolicyId
    version: VersionText
    name: Annotated[Text, Field(max_length=200)] = ""
    description: Annotated[Text, Field(max_length=2_000)] = ""
    detection: DetectionPart = DetectionPart()
    actions: Annotated[Mapping[Entity, Action], Field(max_length=500)] = {}
    default_action: Action = Replace()
    decision: DecisionPart = DecisionPart()

    @model_validator(mode="after")
    def _entities_fit(self) -> Self:
        decision, looked_for = self.decision, self.detection.entities
        if set(decision.block_entities) & set(decision.review_entities):
            raise form("a policy whose decision.block_entities and decision.review_entities share no entity")
        named = {
            "actions": self.actions,
            "decision.block_entities": decision.block_entities,
            "decision.review_entities": decision.review_entities,
            "detection.recognizers": [recognizer.entity for recognizer in self.detection.recognizers],
            "detection.allow_list": [entity for allowed in self.detection.allow_list for entity in allowed.entities],
        }
        for field, names in named.items():  # else a misspelt entity would silently have no effect
            if looked_for is not None and not set(names) <= set(looked_for):
                raise form(f"a policy whose {field} names only entities of detection.entities")
        return self

    @cached_property
    def canonical(self) -> bytes:
        """Canonical JSON, every default written out, but for fields that came after versions had been stored."""
        written = self.model_dump(mode="json")
        if self.detection.profile == "parity":  # what every version meant before there were profiles: its digest stays
            del written["detection"]["profile"]
        if self.detection.cache:
            del written["detection"]["cache"]
        for later in ("recognizers", "allow_list"):
            if not written["detection"][later]:
                del written["detection"][later]
        if self.detection.llm == OFF:
            del written["detection"]["llm"]
        for action in (*written["actions"].values(), written["default_action"]):
            if action.get("scope") == "session":
                del action["scope"]
        return rfc8785.dumps(written)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return digest_of_document(self.canonical)

    @cached_property
    def own_rules(self) -> tuple[str, bytes] | None:
        """The tenant's own recognizers and its allow list as canonical JSON, after its digest; None: it has none."""
        detection = self.detection
        if not detection.recognizers and not detection.allow_list:
            return None
        rules = rfc8785.dumps(detection.model_dump(mode="json", include={"recognizers", "allow_list"}))
        return digest_of_document(rules), rules

    def action_for(self, entity: str) -> Action:
        """What is done with a finding of this entity."""
        return self.actions.get(entity, self.default_action)

    def mode(self, requested: str | None) -> Mode:
        """The stricter of the policy's mode and the one a request asks for: a request can tighten a policy, never
        loosen it. A mode this release does not know counts as strict."""
        if requested is None:
            return self.detection.mode
        asked: Mode = next((mode for mode in _MODES if mode == requested), "strict")
        return min(self.detection.mode, asked, key=_MODES.index)

    def thresholds(self, requested: str | None = None) -> Thresholds:
        """Thresholds of the mode that holds for a request."""
        rows: dict[Mode, Thresholds] = {
            "strict": self.decision.thresholds.strict,
            "moderate": self.decision.thresholds.moderate,
            "permissive": self.decision.thresholds.permissive,
        }
        return rows[self.mode(requested)]


def digest_of_document(canonical: bytes) -> str:
    """SHA-256 hex of a stored document, by its bytes: a stored version is never written anew to check it."""
    return hashlib.sha256(canonical).hexdigest()


def parse_policy(source: str | bytes | Mapping[str, Any]) -> Policy:
    """YAML or JSON text, or an object parsed already → Policy. Raises RecordError `invalid_policy`: which field, and what
    is allowed there; never a value."""
    raw: object = source
    if isinstance(source, str | bytes):
        if len(source) > DOCUMENT_BYTES_MAX:
            raise RecordError(f"the policy has more than {DOCUMENT_BYTES_MAX} bytes: make it shorter", code=INVALID)
        opening = source.lstrip()[:1]
        read = read_json if opening in ("{", b"{") else read_yaml
        raw = read(source, what="the policy", code=INVALID)
    policy = checked(Policy, raw, what="the policy", code=INVALID, tags=ACTION_NAMES)
    if len(policy.canonical) > DOCUMENT_BYTES_MAX:
        raise RecordError(f"the policy has more than {DOCUMENT_BYTES_MAX} bytes: make it shorter", code=INVALID)
    return policy


@cache
def shipped(name: str = DEFAULT) -> Policy:
    """A policy that comes with Veilstream: `default` or `patterns`. Raises ConfigError."""
    path = POLICIES / f"{name}.yaml"
    try:
        return parse_policy(path.read_bytes())
    except (OSError, RecordError) as exc:
        raise ConfigError(f"veilstream/policy/{path.name} is missing or damaged: install veilstream again") from exc
