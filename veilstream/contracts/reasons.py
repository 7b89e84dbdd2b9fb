"""Every reason code of the product (reasons.yaml): what it means and what to do. docs/reasons.md is made from it:

python -m veilstream.contracts.reasons > docs/reasons.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import yaml

FILE: Final = Path(__file__).with_name("reasons.yaml")


@dataclass(frozen=True, slots=True)
class ReasonText:
    """Two fixed sentences. Neither names a value of any record."""

    meaning: str
    todo: str

    @property
    def message(self) -> str:
        return f"{self.meaning} {self.todo}"


SENDERS: Final = "Why a record was refused (its sender can mend it)"
"""The section whose codes make a verdict `refused`; any other failure blocks."""
_UNKNOWN: Final = ReasonText(
    "The record was not let through.", "Look the code up in docs/reasons.md of a newer release."
)


@cache
def sections() -> Mapping[str, Mapping[str, ReasonText]]:
    """Codes by section, in the file's order."""
    raw = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {title: {code: ReasonText(**row) for code, row in rows.items()} for title, rows in raw.items()}


@cache
def reasons() -> Mapping[str, ReasonText]:
    """Every code."""
    return {code: text for rows in sections().values() for code, text in rows.items()}


def message(code: str) -> str:
    """The fixed sentences of a code; a code of a newer release gets general ones."""
    return reasons().get(code, _UNKNOWN).message


def is_senders(code: str) -> bool:
    """Whether the sender of the record can mend it. A code this release does not know fails closed as not theirs."""
    return code in sections()[SENDERS]


def as_markdown() -> str:
    """docs/reasons.md."""
    lines = ["# Reason codes", "", "Made from veilstream/contracts/reasons.yaml; edit it there."]
    for title, rows in sections().items():
        lines += ["", f"## {title}", "", "| code | meaning | what to do |", "|---|---|---|"]
        lines += [f"| `{code}` | {text.meaning} | {text.todo} |" for code, text in rows.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
