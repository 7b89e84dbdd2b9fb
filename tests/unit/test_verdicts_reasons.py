"""The table of reason codes is whole, and its page is made from it."""

from __future__ import annotations

import re
from pathlib import Path

from veilstream.contracts.reasons import SENDERS, as_markdown, is_senders, message, reasons, sections

ROOT = Path(__file__).resolve().parents[2]
_CODES = re.compile(
    r"""(?:\bcode(?::\s*ClassVar\[str\])?\s*=\s*|\bINVALID(?:_[A-Z]+)?\s*=\s*|\bRefusal\(\s*|Failure\(\s*Fault\.[A-Z]+,\s*"""
    r"""|_unreadable\(\s*)"([a-z][a-z0-9_]+)\""""
)
"""The ways a code is written in our code: a class's or a call's `code`, a constant for it, the first word of a refusal."""


def test_the_page_is_made_from_the_table() -> None:
    """Run `python -m veilstream.contracts.reasons > docs/reasons.md` after editing reasons.yaml."""
    assert (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8") == as_markdown()


def test_every_code_in_the_code_has_a_row() -> None:
    """A code without a row would reach a user without words: add it to veilstream/contracts/reasons.yaml."""
    files = [p for folder in ("veilstream", "agents") for p in sorted((ROOT / folder).rglob("*.py"))]
    found = {
        (code, str(path.relative_to(ROOT)))
        for path in files
        for code in _CODES.findall(path.read_text(encoding="utf-8"))
    }
    assert len(found) > 50
    assert sorted((code, where) for code, where in found if code not in reasons()) == []


def test_no_code_stands_twice() -> None:
    """Sections share no code."""
    assert sum(len(rows) for rows in sections().values()) == len(reasons())


def test_sentences_are_sentences() -> None:
    """Each ends with a full stop and fits into a row of the page."""
    for code, text in reasons().items():
        for sentence in (text.meaning, text.todo):
            assert sentence.endswith("."), code
            assert "|" not in sentence, code
            assert "{" not in sentence, code


def test_a_code_of_a_later_release_has_general_words() -> None:
    """An older worker tells what it can, and does not take the failure for the sender's."""
    assert message("a_code_of_a_later_release").startswith("The record was not let through.")
    assert not is_senders("a_code_of_a_later_release")
    assert SENDERS in sections()
    assert is_senders("text_too_long")
    assert not is_senders("internal_error")
