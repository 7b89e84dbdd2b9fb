"""The gate's dead letters: what they hold is sealed under the session's key, where the record names one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agents.ingest.gate.gate import Gate
from agents.ingest.gate.inputs import Input, is_redrive
from veilstream.contracts.step import Failure, Output
from veilstream.keys.keyring import SealKeys
from veilstream.verdicts.dead_letters import dead_letter

AGENT: Final = "gate"


def letters(gate: Gate, given: Input, failure: Failure, tenant: str, session: str | None) -> list[Output]:
    """The letter, and the entry of the key it is sealed under where that is a new session's. Without a key it has no bytes."""
    if session is None or is_redrive(given.record):  # a redrive's bytes are sealed under its session's key already
        return [letter(gate, given, failure, tenant)]
    made: list[Output] = []

    def under() -> SealKeys:
        at_ms = given.record.timestamp_ms
        keys, entries = gate.sessions().sealing(gate.keyring.of_tenant(tenant), tenant, session, at_ms)
        made.extend(entries)
        return keys

    return [letter(gate, given, failure, tenant, under), *made]


def letter(
    gate: Gate,
    given: Input,
    failure: Failure,
    tenant: str | None = None,
    under: Callable[[], SealKeys] | None = None,
) -> Output:
    """The letter of a record; `under` gives the keys of its session."""
    return dead_letter(
        gate.codec,
        gate.keyring,
        AGENT,
        given.record,
        failure,
        gate.cluster,
        tenant,
        given.origin,
        given.revision,
        under,
    )
