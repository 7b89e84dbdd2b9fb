"""What policies ask of detection and this worker lacks: said when the policy comes, counted, and failing closed at a record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agents.detection import wants as module
from agents.detection.wants import Wants, has_accurate
from veilstream.contracts.codec import Codec
from veilstream.contracts.records import PolicyVersion
from veilstream.contracts.step import Record
from veilstream.detection import worker
from veilstream.detection.model import DetectionConfig, DetectionRequest, TextField
from veilstream.detection.pii import rampart
from veilstream.policy.state import tenant_key, version_key
from veilstream.runtime.pool import Pool, PoolWorkerDied
from veilstream.telemetry.wants import ACCURATE, LACKING, LLM, WantsMetrics

LANGUAGE_MODELS = {"llm": {"providers": ["openai", "gemini"]}}


class Place:
    """A worker's wants and their metric."""

    def __init__(self, *, accurate: bool = False, providers: tuple[str, ...] = ()) -> None:
        self.registry = CollectorRegistry()
        self.wants = Wants(WantsMetrics(self.registry).lacking, accurate=accurate, providers=providers)

    def comes(self, policy: str, version: str = "1.0.0", **detection: Any) -> None:
        document = json.dumps({"id": policy, "version": version, "detection": detection})
        row = Codec().encode(PolicyVersion(policy, version, "d" * 64, document, "author", 1))
        self.wants.see(Record("veil.state", 0, 0, 0, version_key(policy, version), row))

    def goes(self, policy: str, version: str = "1.0.0") -> None:
        self.wants.see(Record("veil.state", 0, 0, 0, version_key(policy, version), None))

    def lacking(self) -> tuple[float | None, float | None]:
        accurate, llm = (self.registry.get_sample_value(LACKING, {"what": what}) for what in (ACCURATE, LLM))
        return accurate, llm


@pytest.mark.parametrize(
    ("detection", "has", "lacking"),
    [
        ({}, {}, (0, 0)),
        ({"profile": "fast"}, {}, (0, 0)),
        ({"profile": "accurate"}, {}, (1, 0)),
        ({"profile": "accurate"}, {"accurate": True}, (0, 0)),
        ({"allow_list": ["accurate", "providers"]}, {}, (0, 0)),
        (LANGUAGE_MODELS, {}, (0, 1)),
        (LANGUAGE_MODELS, {"providers": ("anthropic",)}, (0, 1)),
        (LANGUAGE_MODELS, {"providers": ("gemini",)}, (0, 0)),
        ({"profile": "accurate", **LANGUAGE_MODELS}, {}, (1, 1)),
    ],
)
def test_what_a_policy_asks_for_and_the_worker_lacks_is_said(
    detection: dict[str, Any], has: dict[str, Any], lacking: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """One line each, with the policy and what to do; no line where nothing is missing."""
    place = Place(**has)
    place.comes("p", **detection)
    assert place.lacking() == lacking
    said = "".join(capfd.readouterr())
    assert said.count("policy_wants_more") == sum(lacking)
    assert ("pip install 'veilstream[accurate]'" in said, "set a key and its region" in said) == (
        lacking[0] == 1, lacking[1] == 1,
    )  # fmt: skip


def test_the_newest_version_counts_and_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Another version that wants the same says nothing new; one that wants less, or a deleted one, takes it back."""
    place = Place()
    for policy, version in (("a", "1.0.0"), ("a", "1.0.1"), ("b", "1.0.0")):
        place.comes(policy, version, profile="accurate")
    assert place.lacking() == (2, 0)
    assert "".join(capfd.readouterr()).count("policy_wants_more") == 2
    place.comes("a", "1.0.2")
    place.goes("b")
    assert place.lacking() == (0, 0)


def test_what_is_no_policy_is_passed_over() -> None:
    """Other rows of the topic, and a version of a release that this one cannot read."""
    place = Place()
    place.wants.see(Record("veil.state", 0, 0, 0, tenant_key("accurate"), b"accurate"))
    place.wants.see(Record("veil.state", 0, 0, 0, version_key("p", "1.0.0"), b"accurate"))
    place.wants.see(Record("veil.state", 0, 0, 0, None, b"accurate"))
    place.comes("q", profile="accurate", no_such_field=1)
    assert place.lacking() == (0, 0)


def test_the_extra_is_found_by_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed where the tests run; one module less, and it is not."""
    assert has_accurate()
    monkeypatch.setattr(module, "_MODULES", (*module._MODULES, "no_such_module"))
    assert not has_accurate()


def without_the_extra(_: None) -> None:
    rampart.PACKAGE = "no_such_package"  # type: ignore[misc]
    worker.load(None)


async def test_a_record_under_such_a_policy_fails_closed_with_a_code_of_its_own() -> None:
    """Across the pool, as the agent gets it; the same worker goes on with other profiles."""
    pool = Pool(without_the_extra, None)
    await pool.start()
    request = DetectionRequest((TextField("text", "Ann Miller lives in Berlin."),), DetectionConfig(profile="accurate"))
    try:
        with pytest.raises(Exception, match=r"pip install 'veilstream\[accurate\]'") as caught:
            await pool.run(worker.detect, None, [request])
        plain = DetectionRequest(request.fields, DetectionConfig())
        (found,), _ = await pool.run(worker.detect, None, [plain])
    except PoolWorkerDied:
        pytest.fail("the worker died")
    finally:
        await pool.stop()
    assert getattr(caught.value, "reason_code", "") == "profile_unavailable"
    assert {one.type for one in found.findings} == {"PERSON", "LOCATION"}
