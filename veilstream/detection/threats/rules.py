"""The threat rules, read from YAML and checked: a wrong rule ends the process at start, with its file and id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import re2
import yaml

from veilstream.contracts.errors import ConfigError

RULES: Final = Path(__file__).with_name("rules.yaml")

FORMAT: Final = "dangerous_markup"
"""The category of what is wrong with a text's format, not with what it asks for."""
CATEGORIES: Final = frozenset(
    {
        "instruction_override",
        "data_extraction",
        "role_manipulation",
        "encoding_evasion",
        "indirect_injection",
        "tool_abuse",
        FORMAT,
    }
)
SEVERITIES: Final = frozenset({"high", "medium", "low"})
FIELDS: Final = frozenset(
    {"id", "category", "severity", "confidence", "languages", "pattern", "examples", "near_misses"}
)
WORD_LIST: Final = re.compile(r"<([a-z_]+)>")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it matches and what a match means."""

    id: str
    category: str
    severity: str
    """`high`, `medium` or `low`: how bad it is if a match is a threat."""
    languages: tuple[str, ...]
    """Of the words it has: codes of two letters, or `any`."""
    confidence: float
    """How sure a match is a threat, 0 (exclusive) to 1."""
    pattern: str
    """RE2 pattern with the word lists filled in; case does not matter."""
    examples: tuple[str, ...]
    """Texts it must match."""
    near_misses: tuple[str, ...]
    """Harmless texts that come close and must not match."""


def load_rules(file: Path = RULES) -> tuple[Rule, ...]:
    """The rules in `file`, in its order. Raises `ConfigError` that names the file, the rule and what to correct."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        words, entries = dict(content["words"]), list(content["rules"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} holds no threat rules (a mapping with `words` and `rules`): {error}") from error
    rules: dict[str, Rule] = {}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or entry.keys() != FIELDS:
            raise ConfigError(f"{file}, rule number {number}: it must have exactly {', '.join(sorted(FIELDS))}")
        rule = _rule(file, entry, words)
        if rule.id in rules:
            raise ConfigError(f"{file}: two rules have the id {rule.id}: rename one")
        rules[rule.id] = rule
    return tuple(rules.values())


def _rule(file: Path, entry: Mapping[str, Any], words: Mapping[str, str]) -> Rule:
    """One checked rule. A match must not be empty: an empty span says nothing and would match every text."""

    def wrong(what: str) -> ConfigError:
        return ConfigError(f"{file}, rule {entry['id']}: {what}")

    if entry["category"] not in CATEGORIES:
        raise wrong(f"category must be one of {', '.join(sorted(CATEGORIES))}")
    if entry["severity"] not in SEVERITIES:
        raise wrong(f"severity must be one of {', '.join(sorted(SEVERITIES))}")
    if not isinstance(entry["languages"], list) or not all(isinstance(code, str) for code in entry["languages"]):
        raise wrong("languages must be a list of codes, quoted where YAML would read one as true or false ('no')")
    if not isinstance(entry["confidence"], int | float) or not 0 < entry["confidence"] <= 1:
        raise wrong("confidence must be a number above 0, at most 1")
    if len(entry["examples"] or ()) < 2 or len(entry["near_misses"] or ()) < 2:
        raise wrong("it needs at least two examples and two near_misses: they are its tests")
    try:
        pattern = WORD_LIST.sub(lambda name: f"(?:{words[name[1]]})", entry["pattern"].strip())
        compiled = re2.compile(f"(?i){pattern}")
    except KeyError as name:
        raise wrong(f"its pattern uses the word list {name}, which `words` has not") from name
    except re2.error as error:
        raise wrong(f"RE2 does not take its pattern: {error}") from error
    if compiled.search("") is not None:
        raise wrong("its pattern matches the empty text")
    return Rule(
        id=entry["id"],
        category=entry["category"],
        severity=entry["severity"],
        languages=tuple(entry["languages"]),
        confidence=float(entry["confidence"]),
        pattern=pattern,
        examples=tuple(entry["examples"]),
        near_misses=tuple(entry["near_misses"]),
    )
