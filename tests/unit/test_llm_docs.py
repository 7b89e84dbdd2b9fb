"""docs/threats-llm.md says what the program does: its example is a policy, its tables are compared."""

from __future__ import annotations

import re
from pathlib import Path

from veilstream.contracts.layers import SATISFIED
from veilstream.detection.threats.llm import judge, prompt, provider
from veilstream.detection.threats.routing import BOUNDS
from veilstream.policy.document import parse_policy
from veilstream.policy.llm import LlmPart

PAGE = (Path(__file__).parents[2] / "docs" / "threats-llm.md").read_text()
STATUSES = {
    *SATISFIED, provider.BREAKER_OPEN, provider.TIMEOUT, provider.UNREACHABLE, provider.RATE_LIMITED, provider.SERVER_ERROR,
    provider.UNAUTHORIZED, provider.REJECTED, provider.REFUSED, provider.BROKEN, prompt.BAD_ANSWER, prompt.WRONG_NONCE,
    judge.TOO_LONG, judge.NO_BUDGET, judge.NO_REGION, judge.NOT_CONFIGURED, judge.PII_UNKNOWN, judge.LATE,
}  # fmt: skip


def table(first: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    lines = PAGE.split(f"\n{first}")[1].splitlines()[1:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in _rows([line.strip() for line in lines])]


def _rows(lines: list[str]) -> list[str]:
    end = next(n for n, line in enumerate(lines) if not line.startswith("|"))
    return lines[1:end]


def test_the_example_is_a_policy() -> None:
    """And asks whom it says."""
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    assert parse_policy(example[1]).detection.llm.providers == ("anthropic", "openai")


def test_every_field_of_the_part_is_in_the_table() -> None:
    """No more, no less, and with its default."""
    rows = {row[0].strip("`"): row[1].strip("`") for row in table("| field of `detection.llm`")}
    assert set(rows) == set(LlmPart.model_fields)
    assert (rows["ask_from"], rows["send_pii"], rows["on_unavailable"]) == ("comprehensive", "false", "review")
    assert (LlmPart().ask_from, LlmPart().send_pii, LlmPart().on_unavailable) == ("comprehensive", False, "review")


def test_every_status_is_in_the_table() -> None:
    """With whether it is asked again and whether the breaker counts it."""
    rows = {row[0].strip("`"): row for row in table("| `status`")}
    assert set(rows) == STATUSES
    assert {status for status, row in rows.items() if row[2] == "yes"} == provider._AGAIN
    assert {status for status, row in rows.items() if row[4] == "failure"} == provider._ITS_FAULT


def test_the_strategies_are_in_the_table() -> None:
    """With their bounds."""
    rows = table("   | complexity")
    assert [(row[0], row[1].strip("`")) for row in rows[:-1]] == [
        (f"below {f'{bound:g}'.lstrip('0')}", strategy) for bound, strategy in BOUNDS
    ]
    assert rows[-1][:2] == ["from .8", "`paranoid`"]
