"""`make bench-detection`: stock Presidio and each profile, side by side on one core, in CPU time.

Five paired runs: in each, every engine answers the same texts in small shares that take turns, so that a machine which
grows slower is slow for all of them. Latency is that of a text by itself; throughput that of batches, as the agent makes
them. Every contender lives in a process of its own. "Presidio without NER" is Presidio without the `ner` component in
its pipeline and without the recognizer that reads it: what a careful user of Presidio would run for patterns alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Literal, TypeAlias

import psutil

from agents.detection.step import CHUNK_RECORDS
from bench.corpus import corpus_path, texts

Contender: TypeAlias = Literal["stock", "nerless", "parity", "fast", "accurate"]
CONTENDERS: Final[tuple[Contender, ...]] = ("stock", "nerless", "parity", "fast", "accurate")
RUNS: Final = 5
SHARE: Final = 2 * CHUNK_RECORDS
"""Texts before the next contender has its turn."""
Found: TypeAlias = list[tuple[str, int, int, float]]


@dataclass(slots=True)
class Run:
    """What one contender took for all texts once, in CPU seconds, and what it found."""

    batched_s: float
    alone_s: list[float]
    found: list[Found]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    corpus = texts(arguments.texts)
    print(f"corpus {corpus_path().name}: {len(corpus)} texts, {sum(len(t.split()) for t in corpus)} words", flush=True)
    pipes = {contender: _started(contender) for contender in CONTENDERS}
    for pipe in pipes.values():
        _ask(pipe, ("batch", corpus[:SHARE]))
    runs: dict[Contender, list[Run]] = {contender: [] for contender in CONTENDERS}
    for number in range(arguments.runs):
        for contender, run in _run(pipes, corpus, number).items():
            runs[contender].append(run)
        print(
            f"run {number + 1}: " + ", ".join(f"{c} {len(corpus) / runs[c][-1].batched_s:.0f}/s" for c in CONTENDERS),
            flush=True,
        )
    memory = {contender: _ask(pipe, ("memory", None)) for contender, pipe in pipes.items()}
    _show(runs, memory, corpus)


def _run(pipes: dict[Contender, Connection], corpus: Sequence[str], number: int) -> dict[Contender, Run]:
    """All texts by all contenders, in shares that take turns; who begins changes from share to share."""
    made = {contender: Run(0.0, [], []) for contender in CONTENDERS}
    for start in range(0, len(corpus), SHARE):
        share = corpus[start : start + SHARE]
        first = (number + start // SHARE) % len(CONTENDERS)
        for contender in (*CONTENDERS[first:], *CONTENDERS[:first]):
            seconds, found = _ask(pipes[contender], ("batch", share))
            made[contender].batched_s += seconds
            made[contender].found += found
            made[contender].alone_s += _ask(pipes[contender], ("alone", share[::4]))
    return made


def _show(runs: dict[Contender, list[Run]], memory: dict[Contender, float], corpus: Sequence[str]) -> None:
    print(f"{'':10}{'texts/CPU s':>12}{'p50 ms':>9}{'p95 ms':>9}{'MB':>7}{'differing':>11}")
    differing = {
        "nerless": 0, "stock": 0,
        "parity": _differing(runs["parity"][0].found, runs["stock"][0].found),
        "fast": _differing(runs["fast"][0].found, runs["nerless"][0].found),
        "accurate": _differing(runs["accurate"][0].found, runs["stock"][0].found),  # as it should: bench/accuracy.py
    }  # fmt: skip
    for contender in CONTENDERS:
        alone = sorted(1000 * second for run in runs[contender] for second in run.alone_s)
        rate = statistics.median(len(corpus) / run.batched_s for run in runs[contender])
        p50, p95 = statistics.median(alone), alone[int(0.95 * len(alone))]
        print(f"{contender:10}{rate:12.0f}{p50:9.2f}{p95:9.2f}{memory[contender]:7.0f}{differing[contender]:11}")
    differences, flips = _judged(runs, corpus)
    print(
        f"detection: parity_speedup={_ratio(runs, 'stock', 'parity'):.2f} differences={differences} flips={flips} "
        f"fast_speedup={_ratio(runs, 'stock', 'fast'):.1f} fast_vs_nerless_presidio={_ratio(runs, 'nerless', 'fast'):.1f} "
        f"accurate_speedup={_ratio(runs, 'stock', 'accurate'):.2f} "
        f"rss_mb={max(memory['parity'], memory['fast'], memory['accurate']):.0f}"
    )


def _ratio(runs: dict[Contender, list[Run]], slow: Contender, quick: Contender) -> float:
    pairs = zip(runs[slow], runs[quick], strict=True)
    return statistics.median(one.batched_s / other.batched_s for one, other in pairs)


def _differing(ours: Sequence[Found], theirs: Sequence[Found]) -> int:
    from tests.parity.compare import equal

    return sum(not equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _judged(runs: dict[Contender, list[Run]], corpus: Sequence[str]) -> tuple[int, int]:
    """Texts with differing findings: how many are mistakes, and how many near ties of the model."""
    from tests.parity.compare import equal, is_flip, presidio

    differences = flips = 0
    analyzer: Any = None
    for profile, reference in (("parity", "stock"), ("fast", "nerless")):
        rows = zip(corpus, runs[profile][0].found, runs[reference][0].found, strict=True)  # type: ignore[index]
        for text, got, expected in rows:
            if not equal(expected, got):
                analyzer = analyzer or presidio()
                flip = is_flip(analyzer, text, got, profile)  # type: ignore[arg-type]
                flips, differences = flips + flip, differences + (not flip)
    return differences, flips


def _started(contender: Contender) -> Connection:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(target=_serve, args=(contender, theirs), daemon=True).start()
    return ours


def _ask(pipe: Connection, question: tuple[str, Any]) -> Any:
    pipe.send(question)
    return pipe.recv()


def _serve(contender: Contender, pipe: Connection) -> None:
    """A contender's process: load, then answer until the benchmark ends."""
    find = _ours(contender) if contender in ("parity", "fast", "accurate") else _presidio(contender)
    while (question := _next(pipe)) is not None:
        kind, share = question
        if kind == "memory":
            pipe.send(psutil.Process().memory_full_info().pss / 1e6)
        elif kind == "batch":
            began = time.process_time()
            found = find(share)
            pipe.send((time.process_time() - began, found))
        else:
            pipe.send([_alone(find, text) for text in share])


def _next(pipe: Connection) -> tuple[str, Any] | None:
    try:
        question: tuple[str, Any] = pipe.recv()
    except EOFError:  # the benchmark has ended
        return None
    return question


def _alone(find: Any, text: str) -> float:
    began = time.process_time()
    find([text])
    return time.process_time() - began


def _ours(contender: str) -> Any:
    from veilstream.detection import engine
    from veilstream.detection.model import DetectionConfig, DetectionRequest, TextField

    engine.load(None)
    config = DetectionConfig(profile=contender if contender in ("fast", "accurate") else "parity", threats=False)

    def find(share: Sequence[str]) -> list[Found]:
        answers = []
        for start in range(0, len(share), CHUNK_RECORDS):
            batch = [
                DetectionRequest((TextField("text", text),), config) for text in share[start : start + CHUNK_RECORDS]
            ]
            answers += engine.detect(batch)
        return [[(f.type, f.start, f.end, f.score) for f in answer.findings] for answer in answers]

    return find


def _presidio(contender: str) -> Any:
    import os

    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[threads] = "1"
    from tests.parity.compare import by_patterns, presidio, without_model

    analyzer, entities = presidio(), None
    if contender == "nerless":
        entities = by_patterns(analyzer)
        analyzer = without_model(analyzer)
        for nlp in analyzer.nlp_engine.nlp.values():
            nlp.disable_pipe("ner")

    def find(share: Sequence[str]) -> list[Found]:
        answers = [analyzer.analyze(text, "en", entities=entities) for text in share]
        return [[(f.entity_type, f.start, f.end, f.score) for f in answer] for answer in answers]

    return find


if __name__ == "__main__":
    main()
