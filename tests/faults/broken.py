"""Deliberately broken runtimes: what a ledger that is worth something must find.

Each takes the place of `veilstream.runtime.transaction.commit` in a worker's process, through site/sitecustomize.py, so
that the product has no hook for it. Each shows what it does at a fixed point: the n-th batch with outputs of a process,
and there only once, in whatever process of the scenario comes there first (a file says so).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from aiokafka import AIOKafkaProducer

from tests.faults.scenario import Broken

_FOLDER = Path(__file__).parent
Commit = Callable[..., Awaitable[None]]


def environment(
    broken: Broken | Literal["dies"] | None, mark: Path, *, batch: int = 5, group: str = ""
) -> dict[str, str]:
    """What a worker's environment needs to be broken: how, at which batch, and (in the chain) in which consumer group.

    `mark` is the file that tells that it has happened.
    """
    if broken is None:
        return {}
    path = os.pathsep.join([str(_FOLDER / "site"), str(_FOLDER.parents[1])])
    return {"PYTHONPATH": path, "VEIL_BROKEN": f"{broken}:{batch}:{group}:{mark}"}


def break_runtime(transaction: Any, environ: Mapping[str, str]) -> None:
    """Put the broken commit in the place of the module's own."""
    name, number, group, mark = environ["VEIL_BROKEN"].split(":", 3)
    point = _Point(int(number), Path(mark))
    makers: dict[str, Callable[[Commit, _Point], Commit]] = {
        "commits_early": _commits_early,
        "forgets": _forgets,
        "zombie": _zombie,
        "naive": _naive,
        "dies": _dies,
    }
    right, wrong = transaction.commit, makers[name](transaction.commit, point)

    async def commit(producer: AIOKafkaProducer, **batch: Any) -> None:
        await (wrong if group in ("", batch["group"]) else right)(producer, **batch)

    transaction.commit = commit


class _Point:
    """The n-th batch with outputs, the first process that comes there."""

    def __init__(self, batch: int, mark: Path) -> None:
        self._left, self._mark = batch, mark

    def reached(self, outputs: Sequence[Any]) -> bool:
        self._left -= bool(outputs)
        if self._left > 0 or not outputs:
            return False
        try:
            os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


def _commits_early(commit: Commit, point: _Point) -> Commit:
    """The input offset first, then the outputs: what dies between the two has lost a batch."""

    async def broken(producer: AIOKafkaProducer, **batch: Any) -> None:
        await commit(producer, **batch | {"outputs": [], "writes": {}})
        if point.reached(batch["outputs"]):
            os._exit(9)
        await _publish(producer, batch)

    return broken


def _forgets(commit: Commit, point: _Point) -> Commit:
    """One output of one batch is left out."""

    async def broken(producer: AIOKafkaProducer, **batch: Any) -> None:
        if point.reached(batch["outputs"]):
            batch["outputs"] = batch["outputs"][1:]
        await commit(producer, **batch)

    return broken


def _naive(commit: Commit, point: _Point) -> Commit:
    """Publishes and counts, then commits: what dies between the two does the batch again, and counts it again."""

    async def broken(producer: AIOKafkaProducer, **batch: Any) -> None:
        await _publish(producer, batch)
        if point.reached(batch["outputs"]):
            os._exit(9)
        await commit(producer, **batch | {"outputs": [], "writes": {}})

    return broken


def _dies(commit: Commit, point: _Point) -> Commit:
    """Not broken: it dies in the middle, all outputs written and nothing committed."""

    async def dying(producer: AIOKafkaProducer, **batch: Any) -> None:
        if point.reached(batch["outputs"]):
            await producer.begin_transaction()
            await _send(producer, batch)
            os._exit(9)
        await commit(producer, **batch)

    return dying


def _zombie(commit: Commit, point: _Point) -> Commit:
    """Stops itself before a commit; when it goes on, fenced, it publishes its batch all the same, as a plain producer."""

    async def broken(producer: AIOKafkaProducer, **batch: Any) -> None:
        if point.reached(batch["outputs"]):
            bootstrap = [f"{broker.host}:{broker.port}" for broker in producer.client.cluster.brokers()]
            plain = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
            await plain.start()
            os.kill(os.getpid(), signal.SIGSTOP)
            await _send(plain, batch)
            await plain.stop()
        await commit(producer, **batch)

    return broken


async def _publish(producer: AIOKafkaProducer, batch: Mapping[str, Any]) -> None:
    """The outputs and the table's writes in a transaction of their own, without the input offset."""
    if batch["outputs"] or batch["writes"]:
        async with producer.transaction():
            await _send(producer, batch)


async def _send(producer: AIOKafkaProducer, batch: Mapping[str, Any]) -> None:
    answers = [
        await producer.send(
            output.topic, output.value, key=output.key, headers=list(output.headers), partition=output.partition
        )
        for output in batch["outputs"]
    ]
    for key, value in batch["writes"].items() if batch["changelog"] is not None else ():
        answers.append(await producer.send(batch["changelog"], value, key=key, partition=batch["source"].partition))
    await asyncio.gather(*answers)
