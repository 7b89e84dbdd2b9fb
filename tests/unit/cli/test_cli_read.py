"""`veil verdicts` and `veil audit replay`: output topics as lines, from a moment on."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from tests.unit.cli.fake import EVENT, VERDICT, FakeClient, Run
from veilstream.cli.options import moment
from veilstream.contracts.errors import ConfigError


def test_verdicts_are_lines(fake: type[FakeClient], run: Run) -> None:
    """For people a line without content; for machines the whole verdict."""
    fake.answer = [VERDICT, VERDICT]
    code, out, _ = run("verdicts", "--since", "1h", "--tenant", "acme")
    assert (code, out.count("review"), "safe" in out) == (0, 2, False)
    options = fake.calls[0][1]
    assert (options["follow"], options["tenant"]) == (False, "acme")
    assert 3590 < (datetime.now(UTC) - options["since"]).total_seconds() < 3610
    _, out, _ = run("verdicts", "--json", "--follow")
    assert [orjson.loads(line)["id"] for line in out.splitlines()] == [VERDICT.id] * 2
    assert fake.calls[1][1] == {"follow": True, "since": None, "tenant": None}


def test_audit_replay_takes_a_window(fake: type[FakeClient], run: Run) -> None:
    """From and to as ISO times; --json prints canonical bytes."""
    fake.answer = [EVENT]
    code, out, _ = run(
        "audit", "replay", "--from", "2026-07-01T00:00:00+02:00", "--to", "2026-07-02T00:00:00Z", "--json"
    )
    assert code == 0
    assert out.startswith('{"action":"verdict"')  # RFC 8785: keys in order
    _, since, until, options = fake.calls[0]
    assert (since, until) == (datetime(2026, 6, 30, 22, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC))
    assert options == {"tenant": None}
    _, out, _ = run("audit", "replay")
    assert "verdict" in out and "review" in out and "pii" in out


NOW = datetime(2026, 7, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1h", datetime(2026, 7, 2, 11, tzinfo=UTC)),
        ("90m", datetime(2026, 7, 2, 10, 30, tzinfo=UTC)),
        ("0s", NOW),
        ("2d", datetime(2026, 6, 30, 12, tzinfo=UTC)),
        ("2026-07-01T12:00:00+02:00", datetime(2026, 7, 1, 10, tzinfo=UTC)),
        ("2026-07-01T12:00:00Z", datetime(2026, 7, 1, 12, tzinfo=UTC)),
    ],
)
def test_times(text: str, wanted: datetime) -> None:
    """A time ago, or ISO 8601."""
    assert moment(text, NOW) == wanted


@pytest.mark.parametrize(
    "text", ["", "1", "h", "-1h", "1 h", "1w", "1.5h", "yesterday", "2026-13-01", "999999999d", "١h1"]
)
def test_what_is_no_time(text: str) -> None:
    """An error with examples, whatever was given."""
    with pytest.raises(ConfigError, match="ISO 8601"):
        moment(text, NOW)
