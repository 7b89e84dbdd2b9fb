"""The gate's question to a record's token; what is asked stands in veilstream/tenancy/token_check.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agents.ingest.gate.inputs import Input
from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import TokenUse
from veilstream.telemetry.access import NONE, OK, AccessMetrics
from veilstream.tenancy.token_check import Presented, Revoked, check_token, presented
from veilstream.tenancy.token_keys import KeySet
from veilstream.tenancy.token_rules import TokenRules


class Keys(Protocol):
    """The key set in force. `current` and `refreshed` raise WorldError where there is none: nothing is let through then."""

    async def current(self) -> KeySet: ...

    async def refreshed(self) -> KeySet:
        """After one more look, as often as that is allowed."""

    def latest(self) -> KeySet | None:
        """Without a look."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What tokens are checked with."""

    rules: TokenRules
    keys: Keys
    revoked: Revoked
    counts: AccessMetrics

    async def check(self, given: Input, tenant: str) -> TokenUse | None:
        """What is to be remembered of the record's token; None: it has none and needs none. Raises RecordError, WorldError."""
        try:
            token = presented(given.headers, self.rules)
            use = None if token is None else await self._checked(token, given, tenant)
        except RecordError as exc:
            self.counts.attempt(exc.reason_code)
            raise
        self.counts.attempt(NONE if use is None else OK)
        return use

    def check_without_wait(self, given: Input, tenant: str) -> TokenUse | None:
        """The same with the keys at hand, for a record that could not be worked on. Raises RecordError."""
        token = presented(given.headers, self.rules)
        return None if token is None else self._check(token, self.keys.latest() or KeySet({}), given, tenant)

    async def _checked(self, token: Presented, given: Input, tenant: str) -> TokenUse:
        """A key that is not known here may be a new one: one more look."""
        keys = await self.keys.current()
        try:
            return self._check(token, keys, given, tenant)
        except RecordError as exc:
            if exc.reason_code != "token_unknown_key":
                raise
        return self._check(token, await self.keys.refreshed(), given, tenant)

    def _check(self, token: Presented, keys: KeySet, given: Input, tenant: str) -> TokenUse:
        return check_token(
            token, keys, self.rules,
            tenant=tenant, value=given.value or b"", received_ms=given.received_ms, revoked=self.revoked,
        )  # fmt: skip
