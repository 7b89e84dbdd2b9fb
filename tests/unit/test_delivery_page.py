"""docs/delivery.md promises nothing that no test shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")
TESTS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
PROMISES = re.findall(r"^\d+\. .*?(?=^\d+\. |^$)", PAGE.split("## The promise")[1].split("\n## ")[0], flags=re.M | re.S)


def named(text: str) -> list[str]:
    """Tests and test files a text names."""
    return re.findall(r"`(test_\w+(?:\.py)?)`", text) + re.findall(r"\]\(\.\./tests/[\w/]*?(\w+\.py)\)", text)


@pytest.mark.parametrize("name", sorted(set(named(PAGE))))
def test_what_the_page_names_is_there(name: str) -> None:
    """Each file by its name, each test by its definition."""
    if name.endswith(".py"):
        assert name in TESTS
    else:
        assert any(re.search(rf"^(async )?def {name}\(", text, flags=re.M) for text in TESTS.values())


def test_each_promise_names_what_shows_it() -> None:
    """A sentence without a test is no promise."""
    assert len(PROMISES) >= 13
    assert [promise for promise in PROMISES if not named(promise)] == []
