"""How the agents inside the chain fail closed for one record: it goes on as refused, with a dead letter beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from veilstream.contracts.codec import Codec
from veilstream.contracts.records import Envelope, Refusal
from veilstream.contracts.step import Failure, OnFailure, Output, Record
from veilstream.keys.keyring import KeyRing
from veilstream.verdicts.dead_letters import dead_letter


class ChainRecord(Protocol):
    """What every record between gate and anonymization has."""

    @property
    def envelope(self) -> Envelope: ...

    @property
    def refusals(self) -> tuple[Refusal, ...]: ...


class ChainAgent(Protocol):
    """What every agent that reads one needs for a dead letter."""

    @property
    def codec(self) -> Codec: ...

    @property
    def keyring(self) -> KeyRing: ...

    @property
    def cluster(self) -> str: ...


T = TypeVar("T", bound=ChainRecord)


def fail_closed(
    name: str, agent: ChainAgent, read: type[T], refused: Callable[[Record, T, tuple[Refusal, ...]], Sequence[Output]]
) -> OnFailure:
    """`refused` says how this agent passes a refused record on; what cannot be read is answered for by its letter alone."""

    def on_failure(record: Record, failure: Failure) -> Sequence[Output]:
        try:
            found = agent.codec.decode(read, record.value)
        except Exception:  # noqa: BLE001  whatever is wrong with the bytes, nobody else answers for them
            return [dead_letter(agent.codec, agent.keyring, name, record, failure, agent.cluster)]
        refusal = Refusal(failure.code, failure.reason, failure.fault.value)
        known = found.envelope
        letter = dead_letter(
            agent.codec, agent.keyring, name, record, failure, agent.cluster, known.tenant, known.origin, known.revision
        )
        return [*refused(record, found, (*found.refusals, refusal)), letter]

    return on_failure
