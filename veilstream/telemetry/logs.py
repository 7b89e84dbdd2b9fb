"""Logs: one JSON object a line on standard error, with no content of any record, whoever logs.

Our own events are structlog calls with named fields. Other libraries' lines go through the same output from WARNING up:
Faust's and mode's as their bare template (their arguments may be whole messages), an exception only as its type and the
places it passed, never its text, since that may quote what it choked on.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Final, Literal

import structlog

FRAMES_MAX: Final = 5
_QUIET: Final = (
    "faust",
    "mode",
    "aiokafka",
    "asyncio",
    "aiohttp",
    "pebble",
    "httpx2",
    "httpcore2",
    "anthropic",
    "openai",
    "google_genai",
)
_ARGUMENTS_KEPT: Final = ("aiokafka", "asyncio")
"""Their warnings name coordinates, nodes and error codes; their debug lines name keys and values and are never on."""

_SPELL_S: Final = 10.0
_LINES_A_SPELL: Final = 20
"""Of one place in a library in ten seconds: a client without its broker says the same some hundred times a second."""

_FAUST_LIFE: Final = "[^"
"""Faust's lines about its services' starts and stops, whichever logger they come from; ours say the same in one line."""


def where(exc: BaseException) -> str:
    """The innermost places an exception passed, `file:line function`, the last one first. No text, no locals."""
    places: list[str] = []
    trace = exc.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{_short(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(places[-FRAMES_MAX:]))


def _short(filename: str) -> str:
    """The last folder and the file: enough to find it, no path of this machine."""
    return "/".join(Path(filename).parts[-2:])


def configure_logs(level: str = "info", form: Literal["json", "console"] = "json", **bound: str | int) -> None:
    """Set up structlog and the standard library's root logger; `bound` fields (agent, instance) are in every event."""
    rank = logging.getLevelNamesMapping()[level.upper()]
    renderer = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _place_of_exception,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(rank),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(**bound)
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    root.setLevel(max(rank, logging.INFO))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.raiseExceptions = False  # else a broken format string prints its arguments


class _Forward(logging.Handler):
    """Hands other libraries' lines to structlog, without what could be a record, and each place's at most so often."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and str(record.msg).startswith(_FAUST_LIFE):
            return
        place = record.pathname, record.lineno
        since, lines = self._said.get(place, (record.created, 0))
        if record.created - since >= _SPELL_S:
            since, lines = record.created, 0
        self._said[place] = since, lines + 1
        if lines >= _LINES_A_SPELL:
            return
        kept = record.name.split(".")[0] in _ARGUMENTS_KEPT
        text = record.getMessage() if kept else str(record.msg)
        fields: dict[str, Any] = {"logger": record.name, "line": text.splitlines()[0] if text else ""}
        if record.exc_info and record.exc_info[1] is not None:
            fields |= {"error": type(record.exc_info[1]).__name__, "at": where(record.exc_info[1])}
        structlog.get_logger(record.name).log(max(record.levelno, logging.DEBUG), "library", **fields)


def _place_of_exception(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """Replace `exc_info` by type and place, whoever passes it."""
    info = event.pop("exc_info", None)
    exc = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(exc, BaseException):
        event |= {"error": type(exc).__name__, "at": where(exc)}
    return event
