"""What made the findings: the part of a verdict's lineage that detection knows.

Two workers with equal lineage give equal findings for a text. Paths and host names are left out, so that the same image
has the same lineage everywhere; what numpy found in the processor is in, because it chooses the kernels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from veilstream.detection.pii import accurate
from veilstream.detection.threats.rules import Rule

PACKAGES: Final = (
    "google-re2",
    "numpy",
    "phonenumbers",
    "presidio-analyzer",
    "py3langid",
    "regex",
    "spacy",
    "thinc",
    "tldextract",
)


def describe(analyzer: Any, rules: Sequence[Rule]) -> dict[str, str]:
    """Name → version or digest, of a loaded AnalyzerEngine and the threat rules. Digests are SHA-256, hexadecimal."""
    made_by = {f"package/{name}": version(name) for name in PACKAGES}
    made_by["code"] = _digest_files(Path(__file__).parent, ("*.py", "*.yaml", "*.txt"))
    made_by["numeric"] = numeric_backend()
    made_by["engine"] = _digest(_engine_settings(analyzer))
    made_by["recognizers"] = _digest([_recognizer(recognizer) for recognizer in analyzer.registry.recognizers])
    made_by["rules"] = _digest([[rule.id, rule.category, rule.confidence, rule.pattern] for rule in rules])
    made_by["model/threats"] = _digest_files(Path(__file__).parent / "threats", ("*.npz", "*.json", "concepts.yaml"))
    models = analyzer.nlp_engine.nlp or {}
    for language, model in models.items():
        made_by[f"model/{language}"] = _model(model)
    made_by["model/accurate"] = accurate.made_by()
    return dict(sorted(made_by.items()))


def numeric_backend() -> str:
    """Who multiplies matrices: BLAS library and version as numpy was built, and the instruction sets found here."""
    import numpy as np

    built = np.show_config(mode="dicts")
    blas = built["Build Dependencies"]["blas"]
    found = built["SIMD Extensions"].get("found", [])
    return f"numpy {blas['name']} {blas['version']} {'+'.join(found) or 'baseline'}"


def _engine_settings(analyzer: Any) -> dict[str, object]:
    """What of the analyzer's configuration is neither a recognizer nor a model."""
    enhancer = {key: value for key, value in vars(analyzer.context_aware_enhancer).items() if not key.startswith("_")}
    names = getattr(analyzer.nlp_engine, "ner_model_configuration", None)
    return {
        "languages": list(analyzer.supported_languages),
        "threshold": analyzer.default_score_threshold,
        "context": enhancer,
        "names": names.to_dict() if names is not None else {},
    }


def _recognizer(recognizer: Any) -> dict[str, object]:
    """All that decides what a recognizer finds: its class, its own dictionary, context words and thresholds."""
    kind = type(recognizer)
    definition = recognizer.to_dict()
    if "supported_entities" in definition:  # some are made from a set, whose order is another in each process
        definition["supported_entities"] = sorted(definition["supported_entities"])
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "definition": definition,
        "context": list(recognizer.context or ()),
        "thresholds": recognizer.score_thresholds,
    }


def _model(model: Any) -> str:
    """`name version digest` of a spaCy model's files; engines of another kind give their type's name."""
    meta, folder = getattr(model, "meta", None), getattr(model, "path", None)
    if meta is None or folder is None:
        return type(model).__name__
    return f"{meta['lang']}_{meta['name']} {meta['version']} {_digest_files(Path(folder), ('*',))}"


def _digest(value: object) -> str:
    """SHA-256 of a value as canonical JSON; sets are sorted, other objects give their text."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _digest_files(folder: Path, patterns: Iterable[str]) -> str:
    """SHA-256 over the names (relative) and contents of the files below `folder`, in the order of their names."""
    digest = hashlib.sha256()
    files = {file for pattern in patterns for file in folder.rglob(pattern) if file.is_file()}
    for file in sorted(files, key=lambda file: file.relative_to(folder).as_posix()):
        name, content = file.relative_to(folder).as_posix().encode(), file.read_bytes()
        for part in (name, content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()
