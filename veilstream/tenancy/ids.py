"""Which tenant and session ids there are: ASCII, since they stand in topic names, keys and metric labels.

Match them whole (`fullmatch`): `$` would let a line break through.
"""

from __future__ import annotations

import re

TENANT_ID_FORM = "3 to 50 letters, digits, _ or -"
SESSION_ID_FORM = "session_ and 32 hex digits, lower case"
RESERVED = frozenset({"operations", "checkpoints"})
"""Names that would meet ours: the operations key `operations/1`, the topic veil.audit.checkpoints."""
TENANT_ID = re.compile(r"[A-Za-z0-9_-]{3,50}")
SESSION_ID = re.compile(r"session_[0-9a-f]{32}")


def is_tenant_id(text: str) -> bool:
    """Whether the text has the form of a tenant id; whether there is such a tenant is told by `veil.state`."""
    return TENANT_ID.fullmatch(text) is not None


def is_session_id(text: str) -> bool:
    """Whether the text has the form of a session id."""
    return SESSION_ID.fullmatch(text) is not None
