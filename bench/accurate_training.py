"""Train the forest of profile `accurate` (veilstream/detection/pii/accurate.npz) and say how it does on unseen sources.

    python -m bench.accurate_training --data ../shared/data/pii --keep /tmp/features

Needs lightgbm and the extra `accurate`. Every source of TRAINED is left out once, the forest trained on the others, and
the source judged with it: those are the figures to believe. `sgd_chat` (CC BY-SA) is judged and never trained on.
Deterministic: one thread, fixed SEED, rows in the order of the files. docs/detection-accuracy.md is the model's card.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from bench.accuracy_score import Counts, gold, score, total
from veilstream.detection import engine
from veilstream.detection.pii import accurate, trees
from veilstream.detection.pii.accurate import CLASSES, Accurate

SEED: Final = 7
ROUNDS: Final = 45
TRAINED: Final = ("broad_twitter", "lifebench", "nannigalaxy_nano", "sec_filings_test", "wikigold_en")
STRIDES: Final[Mapping[str, int]] = {"lifebench": 6}
"""Of long texts, every n-th is enough."""
PARAMETERS: Final = {
    "objective": "multiclass", "num_class": len(CLASSES), "num_leaves": 12, "learning_rate": 0.15,
    "min_data_in_leaf": 40, "feature_fraction": 0.4, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5,
    "max_bin": 63, "seed": SEED, "num_threads": 1, "verbose": -1, "deterministic": True, "force_row_wise": True,
}  # fmt: skip
ROWS_OF_A_SOURCE: Final = 20_000
"""A source counts by the square root of its rows, of one with so many each row counts one (at most HEAVIEST)."""
HEAVIEST: Final = 3.0

Text = dict[str, Any]


def main() -> None:
    """Judge with each source left out, then train on all and write the forest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True, help="a folder for features, made where missing")
    parser.add_argument("--final", action="store_true", help="only train on all and write")
    arguments = parser.parse_args()
    arguments.keep.mkdir(exist_ok=True)
    sources = {path.stem: _kept(path, arguments.keep) for path in sorted(arguments.data.glob("*.jsonl"))}
    print(
        f"seed {SEED}, rows", {name: sum(len(t["asked"]) for t in texts) for name, texts in sources.items()}, flush=True
    )
    if not arguments.final:
        _judge(sources)
    trained = [sources[name] for name in TRAINED]
    np.savez_compressed(trees.MODEL, **_nodes(_fit(trained)))
    print(f"wrote {trees.MODEL.name}, {trees.MODEL.stat().st_size} bytes", trees.digest(trees.MODEL))


def _judge(sources: Mapping[str, list[Text]]) -> None:
    figures: dict[bool, list[float]] = {True: [], False: []}
    for name, texts in sources.items():
        forest = trees.Forest(_nodes(_fit([sources[s] for s in TRAINED if s != name])), len(CLASSES))
        for text in texts:
            judged = np.zeros((len(text["words"]), len(CLASSES)), np.float32)
            judged[:, 0] = 1
            if len(text["asked"]):
                judged[text["asked"]] = forest(text["rows"])
            text["judged"] = judged
        for join in (True, False):
            one = source_counts(texts, join=join)
            figures[join].append(one.f2)
            print(f"{name:18} join={join} {one.precision:.3f} {one.recall:.3f} {one.f2:.3f}", flush=True)
    print({join: round(sum(f) / len(f), 4) for join, f in figures.items()})


def source_counts(texts: Sequence[Text], *, join: bool) -> Counts:
    """One source's counts, with the forest's judgement and the rules."""
    counts: dict[str, Counts] = {}
    for text in texts:
        names = accurate.by_rules(
            text["text"], accurate.spans(text["text"], text["words"], text["judged"]), text["pieces"]
        )
        found = [*text["patterns"], *((n.start, n.end, n.type) for n in names)]
        for kind, one in score(text["text"], text["gold"], found, join=join).items():
            counts.setdefault(kind, Counts()).add(one)
    return total(counts, {kind for text in texts for _, _, kind in text["gold"]})


def _kept(path: Path, folder: Path) -> list[Text]:
    kept = folder / f"{path.stem}.pickle"
    if not kept.exists():
        kept.write_bytes(pickle.dumps(_texts(path)))
        print(path.stem, flush=True)
    texts: list[Text] = pickle.loads(kept.read_bytes())
    return texts


def _texts(path: Path) -> list[Text]:
    """What training and judging need of each text of a source."""
    from veilstream.detection.model import DetectionConfig, DetectionRequest, TextField

    engine.load(None)
    stages = engine._loaded().pii.stages["en"]  # the engine's own, so that rows are those of the running product
    models = Accurate(forest=None)
    made: list[Text] = []
    lines = path.read_text(encoding="utf-8").splitlines()[:: STRIDES.get(path.stem, 1)]
    for row in map(orjson.loads, lines):
        text = row["text"]
        config = DetectionConfig(threats=False, format_check=False)
        findings = engine.detect([DetectionRequest((TextField("text", text),), config)])[0].findings
        doc = stages.read(text)
        found = stages.names([doc])[0]
        words = [(token.idx, token.idx + len(token)) for token in doc]
        if not words:
            continue
        rows, asked, pieces = models.rows(text, words, found.scored.outside, stages.labels, found.found)
        labelled = gold(row["spans"])
        made.append(
            {
                "text": text, "words": words, "rows": rows[asked], "asked": asked, "pieces": pieces, "gold": labelled,
                "patterns": [(f.start, f.end, f.type) for f in findings if f.type not in accurate.REPLACED],
                "classes": _classes(words, labelled)[asked],
            }
        )  # fmt: skip
    return made


def _classes(words: Sequence[tuple[int, int]], labelled: Sequence[tuple[int, int, str]]) -> Any:
    classes = np.zeros(len(words), np.int32)
    for start, end, kind in labelled:
        if kind in CLASSES:
            classes[[place for place, (a, b) in enumerate(words) if a < end and b > start]] = CLASSES.index(kind)
    return classes


def _fit(sources: Sequence[list[Text]]) -> Any:
    import lightgbm

    counts = [sum(len(text["asked"]) for text in texts) for texts in sources]
    rows = np.concatenate([text["rows"] for texts in sources for text in texts])
    classes = np.concatenate([text["classes"] for texts in sources for text in texts])
    weights = np.concatenate([np.full(n, min(HEAVIEST, (ROWS_OF_A_SOURCE / n) ** 0.5)) for n in counts])
    return lightgbm.train(PARAMETERS, lightgbm.Dataset(rows, classes, weight=weights), ROUNDS)


def _nodes(booster: Any) -> dict[str, Any]:
    """LightGBM's trees in the form `trees.Forest` reads."""
    nodes: list[list[float]] = []

    def add(node: Mapping[str, Any]) -> int:
        place = len(nodes)
        nodes.append([0, 0.0, place, place, float(node.get("leaf_value", 0.0))])
        if "split_feature" in node:
            left, right = add(node["left_child"]), add(node["right_child"])
            nodes[place] = [node["split_feature"], node["threshold"], left, right, 0.0]
        return place

    root = [add(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]
    feature, threshold, left, right, value = zip(*nodes, strict=True)
    whole = {"feature": feature, "left": left, "right": right, "root": root}
    return {name: np.array(column, np.int32) for name, column in whole.items()} | {
        "threshold": np.array(threshold, np.float32), "value": np.array(value, np.float32),
    }  # fmt: skip


if __name__ == "__main__":
    main()
