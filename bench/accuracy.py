"""`make bench-accuracy`: precision, recall and F2 of stock Presidio and each profile, by source and type.

Sources are files of JSON Lines, `{"text", "spans": [[start, end, label], …]}`: those of VEIL_ACCURACY_DATA (a folder), else
the development sets beside the checkout, else the bundled excerpt. How a finding is counted: accuracy_score.py. A source
that the forest of `accurate` was trained on is marked with a star: what to expect of unseen text is in
docs/detection-accuracy.md, where each source was left out in turn.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson

from bench.accuracy_score import APART, PATTERN_TYPES, Counts, Span, gold, score, total
from veilstream.detection import engine
from veilstream.detection.model import DetectionConfig, DetectionRequest, Profile, TextField

ROOT: Final = Path(__file__).resolve().parent.parent
DEVELOPMENT: Final = ROOT.parent / "shared" / "data" / "pii"
BUNDLED: Final = ROOT / "tests" / "data" / "accuracy"
CHARACTERS: Final = 1_000_000
"""Of a source with more code points, every n-th text is taken, so that about as many are left."""
BATCH: Final = 25

Text = tuple[str, list[Span]]
Find = Callable[[Sequence[str]], list[list[Span]]]
Counted = dict[str, Counts]


def main() -> None:
    """Measure and print."""
    from bench.accurate_training import TRAINED

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--characters", type=int, default=CHARACTERS)
    arguments = parser.parse_args()
    sources = read(arguments.data, arguments.characters)
    contenders = {"presidio": presidio(), **{name: ours(name) for name in ("parity", "fast", "accurate")}}
    counted: dict[str, dict[str, dict[bool, Counted]]] = {}
    for source, texts in sources.items():
        counted[source] = {name: count(texts, find) for name, find in contenders.items()}
        _show(source + ("*" if source in TRAINED else ""), texts, counted[source])
    print(summary(sources, counted))


def data_folder() -> Path:
    """Where the sources are."""
    named = os.environ.get("VEIL_ACCURACY_DATA")
    if named:
        return Path(named)
    return DEVELOPMENT if DEVELOPMENT.is_dir() else BUNDLED


def read(folder: Path, characters: int = CHARACTERS) -> dict[str, list[Text]]:
    """The texts of each source with their labelled spans."""
    sources: dict[str, list[Text]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        rows = [orjson.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        every = max(1, round(sum(len(row["text"]) for row in rows) / characters))
        sources[path.stem] = [(row["text"], gold(row["spans"])) for row in rows[::every]]
    return sources


def presidio() -> Find:
    """Presidio's own engine."""
    from veilstream.detection.pii.configuration import build, silence
    from veilstream.detection.pii.configuration import sources as files

    engine.load(None)
    silence()
    analyzer = build(files(None))
    return lambda texts: [[(f.start, f.end, f.entity_type) for f in analyzer.analyze(text, "en")] for text in texts]


def ours(profile: str) -> Find:
    """A profile of our engine."""
    chosen: Profile = profile  # type: ignore[assignment]
    config = DetectionConfig(profile=chosen, threats=False, format_check=False)

    def find(texts: Sequence[str]) -> list[list[Span]]:
        found = engine.detect([DetectionRequest((TextField("text", text),), config) for text in texts])
        return [[(f.start, f.end, f.type) for f in one.findings] for one in found]

    engine.load(None)
    return find


def count(texts: Sequence[Text], find: Find) -> dict[bool, Counted]:
    """Counts by type, joined (True) and strict (False)."""
    sums: dict[bool, Counted] = {True: {}, False: {}}
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        for (text, labelled), found in zip(batch, find([text for text, _ in batch]), strict=True):
            for join, sum_ in sums.items():
                for kind, one in score(text, labelled, found, join=join).items():
                    sum_.setdefault(kind, Counts()).add(one)
    return sums


def types(texts: Sequence[Text]) -> list[str]:
    """The types that are labelled in a source."""
    return sorted({kind for _, labelled in texts for _, _, kind in labelled})


def f2(texts: Sequence[Text], counted: Counted) -> float:
    """F2 of a source over its types, ORGANIZATION left out."""
    return total(counted, types(texts)).f2


def summary(sources: Mapping[str, list[Text]], counted: Mapping[str, Mapping[str, Mapping[bool, Counted]]]) -> str:
    """The last line: macro F2 over sources; a source is worse when either way of counting, or a pattern type's recall, is."""

    def figures(name: str, *, join: bool) -> list[float]:
        return [f2(texts, counted[source][name][join]) for source, texts in sources.items()]

    worse = sum(
        _is_worse(texts, counted[source]) or lost_patterns(texts, counted[source]) for source, texts in sources.items()
    )
    made = {(name, join): figures(name, join=join) for name in ("presidio", "accurate") for join in (True, False)}
    mean = {key: sum(values) / len(values) for key, values in made.items()}
    return (
        f"accuracy: presidio_f2={mean['presidio', True]:.3f} accurate_f2={mean['accurate', True]:.3f} "
        f"strict_presidio_f2={mean['presidio', False]:.3f} strict_accurate_f2={mean['accurate', False]:.3f} worse_sources={worse}"
    )


def _is_worse(texts: Sequence[Text], counted: Mapping[str, Mapping[bool, Counted]]) -> bool:
    return any(f2(texts, counted["accurate"][join]) < f2(texts, counted["presidio"][join]) for join in (True, False))


def lost_patterns(texts: Sequence[Text], counted: Mapping[str, Mapping[bool, Counted]]) -> bool:
    """Whether `accurate` finds fewer of a type that rules find."""
    return any(
        counted["accurate"][False][kind].recall < counted["presidio"][False][kind].recall
        for kind in types(texts)
        if kind in PATTERN_TYPES
    )


def _show(source: str, texts: Sequence[Text], counted: Mapping[str, Mapping[bool, Counted]]) -> None:
    print(f"\n{source}: {len(texts)} texts{'':12}{'joined: P':>20}{'R':>7}{'F2':>7}{'strict: P':>14}{'R':>7}{'F2':>7}")
    for name, made in counted.items():
        _row(name, [total(made[join], types(texts)) for join in (True, False)])
        for kind in types(texts):
            apart = " (apart)" if kind == APART else ""
            _row(f"  {kind}{apart}", [made[join].get(kind, Counts()) for join in (True, False)])
    print(flush=True)


def _row(name: str, pair: Sequence[Counts]) -> None:
    joined, strict = (f"{one.precision:7.3f}{one.recall:7.3f}{one.f2:7.3f}" for one in pair)
    print(f"{name:40}{joined}       {strict}")


if __name__ == "__main__":
    main()
