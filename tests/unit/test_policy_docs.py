"""docs/policy.md says what the program does: its examples are run, its tables compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agents.policy.step import decode_command
from veilstream.contracts.codec import Codec
from veilstream.policy.actions import ACTION_NAMES, Hash, Mask, Preserve, Redact, Replace
from veilstream.policy.commands import KINDS
from veilstream.policy.document import Policy, parse_policy
from veilstream.policy.recognizers import OwnRecognizer

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    lines = PAGE.split(f"\n## {heading}\n")[1].splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("|---")) + 1
    end = next(n for n, line in enumerate(lines) if n > start and not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_example_is_a_policy() -> None:
    """And does what its comments say."""
    policy = parse_policy(block("yaml"))
    assert policy.action_for("PERSON") == Preserve()
    assert policy.action_for("US_SSN") == Redact()
    assert policy.thresholds().block == 0.75


def test_the_example_of_own_recognizers_is_a_policy() -> None:
    """It is taken, and its table has every field of a recognizer."""
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    policy = parse_policy(example)
    assert [recognizer.entity for recognizer in policy.detection.recognizers] == ["EMPLOYEE_ID", "PROJECT"]
    assert {names(row[0])[0] for row in rows("Recognizers of your own")} == set(OwnRecognizer.model_fields)


def test_the_example_is_a_command() -> None:
    """Its kind exists and its body is one."""
    command = decode_command(Codec(), block("json").encode())
    assert KINDS[command.kind].body.model_validate_json(command.body)


def test_every_kind_of_command_is_in_the_table_with_its_fields() -> None:
    """No more, no less."""
    told = {names(kind)[0]: names(body) for kind, _, body, _ in rows("Commands")}
    assert told == {kind: list(row.body.model_fields) for kind, row in KINDS.items()}


@pytest.mark.parametrize("action", [Redact, Mask, Replace, Hash, Preserve])
def test_every_action_is_in_the_table_with_its_parameters(action: type[Any]) -> None:
    """Names and defaults of the table are those of the class."""
    told = {names(name)[0]: names(parameters) for name, parameters, _ in rows("Actions")}
    assert set(told) == ACTION_NAMES
    fields = {name: field.default for name, field in action.model_fields.items() if name != "action"}
    assert [name for name in told[action().action] if name in fields] == list(fields)
    assert [name for name in told[action().action] if name not in fields] == [
        v for v in fields.values() if isinstance(v, str)
    ]


def test_every_field_of_a_policy_is_in_the_table() -> None:
    """No more, no less."""
    told = {name.replace(".MODE", "") for row in rows("Writing one") for name in names(row[0])}
    fields = set()
    for name, field in Policy.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            fields |= {f"{name}.{below}" for below in inner.model_fields}
        else:
            fields.add(name)
    assert told == fields
