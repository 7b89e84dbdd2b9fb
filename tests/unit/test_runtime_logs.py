"""Logs: no content of any record, whoever logs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from veilstream.telemetry.logs import configure_logs, where

SECRET = "4111 1111 1111 1111"


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What was logged, one object a line."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logs("info", agent="gate")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    root.handlers[:], logging.raiseExceptions = handlers, True
    root.setLevel(level)


Lines = Callable[[], list[dict[str, Any]]]


def raised() -> ValueError:
    try:
        raise ValueError(SECRET)
    except ValueError as exc:
        return exc


def test_an_exception_is_its_type_and_place(lines: Lines) -> None:
    """Never str(exc), never locals: where it was raised is enough to find it."""
    secret = SECRET
    structlog.get_logger().error("step_failed", exc_info=raised())
    (line,) = lines()
    assert secret not in json.dumps(line)
    assert (line["error"], line["agent"], line["level"]) == ("ValueError", "gate", "error")
    assert line["at"].startswith("unit/test_runtime_logs.py:")
    assert line["at"].endswith(" raised")


def test_exc_info_true_inside_an_except_block(lines: Lines) -> None:
    """The usual idiom is covered too."""
    try:
        raise ValueError(SECRET)
    except ValueError:
        structlog.get_logger().exception("step_failed")
    assert SECRET not in json.dumps(lines())


def test_fausts_lines_are_their_template(lines: Lines) -> None:
    """Faust's arguments may be whole messages and exceptions that quote them."""
    logging.getLogger("faust.streams").error("Error in %r: %r", SECRET, raised(), exc_info=raised())
    (line,) = lines()
    assert SECRET not in json.dumps(line)
    assert (line["line"], line["logger"], line["error"]) == ("Error in %r: %r", "faust.streams", "ValueError")


def test_aiokafkas_warnings_keep_their_coordinates(lines: Lines) -> None:
    """Topic, partition and error code of a warning help; debug lines, which name keys and values, are never on."""
    logging.getLogger("aiokafka.producer").warning("retrying %s", "topic-0")
    logging.getLogger("aiokafka.producer").debug("Sending (key=%s)", SECRET)
    assert [line["line"] for line in lines()] == ["retrying topic-0"]


def test_one_place_in_a_library_does_not_flood_the_log(lines: Lines) -> None:
    """Without its broker a client says the same hundreds of times a second: twenty in ten seconds are kept, others too."""
    flood, other = logging.getLogger("aiokafka.conn"), logging.getLogger("aiokafka.client")
    for number in range(500):
        flood.warning("Unable to connect to %s", number)
    other.warning("Unable to update metadata")
    said = [line["line"] for line in lines()]
    assert said == [*(f"Unable to connect to {number}" for number in range(20)), "Unable to update metadata"]


@pytest.mark.parametrize("name", ["faust", "mode", "aiokafka", "asyncio", "aiohttp", "pebble"])
def test_libraries_are_quiet_below_warning(lines: Lines, name: str) -> None:
    """Their INFO lines say nothing an operator acts on."""
    logging.getLogger(f"{name}.x").info("started")
    assert lines() == []


async def test_asyncios_forgotten_exceptions_are_safe(lines: Lines) -> None:
    """A task whose exception nobody read is logged by asyncio with its repr: not here."""
    asyncio.get_running_loop().call_exception_handler({"message": "never retrieved", "exception": raised()})
    assert SECRET not in json.dumps(lines())


def test_the_place_has_no_path_of_this_machine() -> None:
    """Folder and file only, the innermost five."""
    assert where(raised()).startswith("unit/test_runtime_logs.py:")
    assert where(ValueError()) == ""
