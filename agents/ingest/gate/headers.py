"""Of the headers from outside, those that travel on: to the verdict, and no further."""

from __future__ import annotations

import re

from veilstream.contracts.step import Headers

CLOUD_EVENTS_MAX = 16
"""Headers of one record; CloudEvents names eight attributes, the rest is for extensions."""
HEADER_BYTES_MAX = 256
_CLOUD_EVENT = re.compile(r"ce_[a-z0-9]{1,20}")  # CloudEvents 1.0: attribute names, at most 20 characters
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context
_TRACE_NAME = "traceparent"


def kept_headers(headers: Headers) -> Headers:
    """traceparent and ce_*, where well-formed, short, printable; the first of each name, of ce_* at most 16.

    Together they stay below 5 KiB: no number of headers may make an output too large to publish.
    """
    kept: dict[str, bytes] = {}
    for name, value in headers:
        if name in kept or value is None:
            continue
        full = len(kept.keys() - {_TRACE_NAME}) >= CLOUD_EVENTS_MAX
        cloud_event = _CLOUD_EVENT.fullmatch(name) and len(value) <= HEADER_BYTES_MAX and _PRINTABLE.fullmatch(value)
        if (cloud_event and not full) or (name == _TRACE_NAME and traceparent(((name, value),))):
            kept[name] = value
    return tuple(kept.items())


def traceparent(headers: Headers) -> str | None:
    """The W3C trace context of a record, where it has a well-formed one."""
    value = next((value for name, value in headers if name == _TRACE_NAME), None)
    text = value.decode("ascii", "replace") if value is not None else ""
    return text if _TRACEPARENT.fullmatch(text) else None
