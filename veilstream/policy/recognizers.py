"""What a tenant adds to detection in its policy: recognizers of its own, and values that are nobody's.

`veilstream/detection/pii/own.py` runs them. The fields have the names of Presidio's own recognizers in YAML.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic import Strict as StrictType

from veilstream.policy.actions import Text
from veilstream.policy.edge import Strict, form
from veilstream.policy.regexes import PROGRAMS_MAX, PatternError, program_size

RECOGNIZERS_MAX: Final = 100
PATTERNS_MAX: Final = 50
REGEX_CHARACTERS_MAX: Final = 1_000
WORDS_MAX: Final = 20_000
"""Entries of a list; the policy's size bounds them before that."""
ENTRY_CHARACTERS_MAX: Final = 200
CONTEXT_MAX: Final = 100
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,62}[A-Za-z0-9])?")
_ENTITY = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def _entity(value: str) -> str:
    if not _ENTITY.fullmatch(value):
        raise form("an entity name: upper case letters, digits and _, as EMAIL_ADDRESS")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise form("1 to 64 letters, digits, blanks, _ . or -, a letter or digit at both ends")
    return value


def _regex(value: str) -> str:
    if len(value) > REGEX_CHARACTERS_MAX:
        raise form(f"a pattern of at most {REGEX_CHARACTERS_MAX} characters")
    try:
        program_size(value)
    except PatternError as error:
        raise form(str(error)) from None
    return value


def _listed(value: str) -> str:
    if not any(character.isalnum() for character in value):
        raise form("a value with a letter or a digit in it")
    return value


Entity = Annotated[str, AfterValidator(_entity)]
Name = Annotated[str, AfterValidator(_name)]
Score = Annotated[float, Field(gt=0, le=1)]
Entry = Annotated[Text, Field(min_length=1, max_length=ENTRY_CHARACTERS_MAX), AfterValidator(_listed)]
Entries = Annotated[tuple[Entry, ...], StrictType(False), Field(max_length=WORDS_MAX)]


class OwnPattern(Strict):
    """One pattern, in the syntax of RE2."""

    name: Name
    regex: Annotated[str, AfterValidator(_regex)]
    score: Score = 0.5


class OwnRecognizer(Strict):
    """Finds one entity by patterns, by a list of words, or by both."""

    name: Name
    entity: Entity
    patterns: Annotated[tuple[OwnPattern, ...], StrictType(False), Field(max_length=PATTERNS_MAX)] = ()
    deny_list: Entries = ()
    deny_list_score: Score = 1.0
    context: Annotated[tuple[Entry, ...], StrictType(False), Field(max_length=CONTEXT_MAX)] = ()
    case_sensitive: bool = False

    @model_validator(mode="after")
    def _finds_something(self) -> Self:
        if not self.patterns and not self.deny_list:
            raise form("a recognizer with patterns, a deny_list, or both")
        if len({pattern.name for pattern in self.patterns}) < len(self.patterns):
            raise form("a recognizer whose patterns have different names")
        return self


class Allowed(Strict):
    """Values that are no finding of these entities."""

    entities: Annotated[tuple[Entity, ...], StrictType(False), Field(min_length=1, max_length=500)]
    values: Annotated[Entries, Field(min_length=1)]


Recognizers = Annotated[tuple[OwnRecognizer, ...], StrictType(False), Field(max_length=RECOGNIZERS_MAX)]
AllowList = Annotated[tuple[Allowed, ...], StrictType(False), Field(max_length=RECOGNIZERS_MAX)]


def refuse_too_many(recognizers: tuple[OwnRecognizer, ...]) -> tuple[OwnRecognizer, ...]:
    """The same, unless two have one name or their patterns are too large together (a violation)."""
    if len({recognizer.name for recognizer in recognizers}) < len(recognizers):
        raise form("recognizers with different names")
    if sum(program_size(pattern.regex) for one in recognizers for pattern in one.patterns) > PROGRAMS_MAX:
        raise form(f"recognizers whose patterns have at most {PROGRAMS_MAX} instructions for RE2 together")
    return recognizers
