"""From Presidio's YAML to a loaded AnalyzerEngine that never asks the network and never logs a text."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import yaml

from veilstream.contracts.errors import ConfigError

DEFAULT: Final = Path(__file__).with_name("default.yaml")

Part: TypeAlias = Literal["analyzer", "nlp", "recognizers"]

PATTERN_TIMEOUT_S: Final = 10
"""Wall seconds one pattern may take on one text. Presidio's own 60 s would outlast the batch's deadline."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Which file holds which part of a Presidio configuration; None: Presidio's own default for that part."""

    analyzer: Path | None = None
    nlp: Path | None = None
    recognizers: Path | None = None

    def files(self) -> list[Path]:
        """The files there are, in a fixed order."""
        return [path for path in (self.analyzer, self.nlp, self.recognizers) if path is not None]


def sources(nlp_config: str | None) -> Sources:
    """The files of a configuration: our default, one file of any of Presidio's three kinds, or a folder of them.

    Raises `ConfigError` when there is none, when one is no Presidio configuration, or when two are of one kind.
    """
    path = DEFAULT if nlp_config is None else Path(nlp_config)
    if not path.exists():
        raise ConfigError(f"no Presidio configuration at {path}: correct VEIL_NLP_CONFIG, or leave it out for ours")
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"the folder {path} holds no .yaml file: put Presidio's configuration there")
    found: dict[Part, Path] = {}
    for file in files:
        part = _part(file, _read(file))
        if part in found:
            raise ConfigError(f"{found[part]} and {file} are both Presidio {part} configurations: keep one of them")
        found[part] = file
    return Sources(**found)


def build(origin: Sources) -> Any:
    """A loaded `AnalyzerEngine` for these files. Raises `ConfigError` where Presidio refuses them."""
    os.environ.setdefault("PRESIDIO_DEVICE", "cpu")  # a GPU would give other numbers than the lineage says
    os.environ.setdefault("REGEX_TIMEOUT_SECONDS", str(PATTERN_TIMEOUT_S))  # read when Presidio is imported
    from presidio_analyzer import AnalyzerEngineProvider

    pin_suffix_list()
    try:
        provider = AnalyzerEngineProvider(origin.analyzer, origin.nlp, origin.recognizers)
        _refuse_missing_models(_nlp_part(origin, provider.configuration))
        with warnings.catch_warnings():
            # Presidio warns that it adds the model's recognizer by itself, which is what its defaults rely on.
            warnings.filterwarnings("ignore", message="NLP recognizer", category=UserWarning)
            return provider.create_engine()
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError) as error:
        names = ", ".join(str(file) for file in origin.files())
        raise ConfigError(f"Presidio does not take the configuration in {names}: {error}") from error


def pin_suffix_list() -> None:
    """Make the e-mail recognizer use the suffix list bundled with tldextract: no request, no cache on disk."""
    import tldextract

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


class PatternTimeouts(logging.Handler):
    """Takes all that Presidio logs: writes none of it, as some of it holds text, and counts patterns out of time.

    Presidio goes on without a pattern that ran out of time. A firewall must not: `search.py` asks this count.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count, never write."""
        self.count += "timed out" in str(record.msg)


def silence() -> PatternTimeouts:
    """Send Presidio's log to this process's one `PatternTimeouts` and nowhere else."""
    logger = logging.getLogger("presidio-analyzer")
    counting = [handler for handler in logger.handlers if isinstance(handler, PatternTimeouts)]
    timeouts = counting[0] if counting else PatternTimeouts()
    logger.handlers[:] = [timeouts]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    return timeouts


def _read(file: Path) -> Mapping[str, Any]:
    """The YAML mapping in `file`. Presidio itself would fall back to its defaults where this raises."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no mapping: it must be a Presidio analyzer, nlp or recognizer configuration")
    return content


def _part(file: Path, content: Mapping[str, Any]) -> Part:
    """Which of Presidio's three kinds of file this is, by its keys."""
    if "nlp_engine_name" in content:
        return "nlp"
    if "recognizers" in content:
        return "recognizers"
    if content.keys() & {"nlp_configuration", "recognizer_registry", "supported_languages"}:
        return "analyzer"
    raise ConfigError(
        f"{file} is no Presidio configuration: it has none of nlp_engine_name, recognizers, nlp_configuration,"
        " recognizer_registry, supported_languages at its top"
    )


def _nlp_part(origin: Sources, analyzer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The NLP configuration Presidio will use: inline in the analyzer file, its own file, or Presidio's default."""
    if "nlp_configuration" in analyzer:
        inline: Mapping[str, Any] = analyzer["nlp_configuration"]
        return inline
    if origin.nlp is not None:
        return _read(origin.nlp)
    return {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": "en_core_web_lg"}]}


def _refuse_missing_models(nlp: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a spaCy model that is not installed: Presidio would download it."""
    if nlp.get("nlp_engine_name") != "spacy":
        return
    from spacy.util import is_package

    for model in nlp["models"]:
        name = model["model_name"]
        if not is_package(name) and not Path(name).exists():
            raise ConfigError(
                f"the spaCy model {name} for language {model['lang_code']} is not installed:"
                f" install it, or name an installed one as model_name in the nlp configuration"
            )
