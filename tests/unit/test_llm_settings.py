"""The settings of the LLM classifier and its part of a policy: what is wrong is said at start, and nothing is half on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from veilstream.contracts.errors import ConfigError, RecordError
from veilstream.detection.threats.llm.configured import judge_of, regions_of
from veilstream.policy.document import parse_policy
from veilstream.policy.llm import LlmPart
from veilstream.settings import Settings
from veilstream.stack.agents import AGENTS, agent_program
from veilstream.telemetry.judging import JudgingMetrics

KEYED = {"llm_openai_key": "k", "llm_regions": "openai=eu"}


def judge(**settings: Any) -> Any:
    return judge_of(Settings(**settings), JudgingMetrics(CollectorRegistry()), lambda: 0.0)


def test_without_a_key_nobody_is_asked() -> None:
    """The default; an empty variable is no key."""
    assert judge().providers == {}
    assert judge(llm_openai_key="", llm_regions="openai=eu").providers == {}


def test_a_key_makes_a_provider() -> None:
    """With its regions, its model, and its address."""
    providers = judge(**KEYED, llm_openai_model="m", llm_openai_url="http://127.0.0.1:1/v1", llm_call_s=3.0).providers
    assert list(providers) == ["openai"]
    found = providers["openai"]
    assert (found.model, found.regions, found.call_s) == ("m", {"eu"}, 3.0)
    assert judge(**KEYED, llm_call_s=9.0, llm_total_s=10.0).providers["openai"].call_s == 5.0


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no regions": ({"llm_openai_key": "k"}, "VEIL_LLM_REGIONS does not say where openai"),
    "regions of another": ({"llm_openai_key": "k", "llm_regions": "gemini=eu"}, "does not say where openai"),
    "no such region": ({"llm_regions": "openai=mars"}, "VEIL_LLM_REGIONS must be like"),
    "no such provider": ({"llm_regions": "grok=eu"}, "VEIL_LLM_REGIONS must be like"),
    "named twice": ({"llm_regions": "openai=eu, openai=us"}, "VEIL_LLM_REGIONS must be like"),
    "no region": ({"llm_regions": "openai"}, "VEIL_LLM_REGIONS must be like"),
    "http to a network": ({**KEYED, "llm_openai_url": "http://example.org/v1"}, "VEIL_LLM_OPENAI_URL must be an https"),
    "no address": ({**KEYED, "llm_openai_url": "example.org"}, "VEIL_LLM_OPENAI_URL must be an https"),
    "a password in it": ({**KEYED, "llm_openai_url": "https://u:pass@example.org"}, "VEIL_LLM_OPENAI_URL must be an https"),
    "no time": ({"llm_call_s": 0}, "VEIL_LLM_CALL_S"),
    "longer than a watchdog waits": ({"llm_total_s": 60}, "VEIL_LLM_TOTAL_S"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_said_at_start(kind: str) -> None:
    """By the variable to change, without the key or a password."""
    settings, told = WRONG[kind]
    with pytest.raises(ConfigError, match=told) as error:
        judge(**settings)
    assert "pass@" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "module"), [("openai", "openai"), ("anthropic", "anthropic"), ("gemini", "google.genai")]
)
def test_an_sdk_that_is_not_installed_is_named(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At start, with what to install; without its key nobody misses it."""
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"veilstream.detection.threats.llm.by_{name}", raising=False)
    if module == "google.genai":
        monkeypatch.delattr("google.genai", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'veilstream\[llm\]'") as error:
        judge(**{f"llm_{name}_key": "secret-key", "llm_regions": f"{name}=eu"})
    assert "secret-key" not in str(error.value)
    assert judge().providers == {}


def test_regions_are_read() -> None:
    """Several of one, blanks anywhere, nothing at all."""
    assert regions_of("anthropic=us, openai = us + eu,") == {"anthropic": {"us"}, "openai": {"us", "eu"}}
    assert regions_of("") == {}


@pytest.mark.parametrize("name", AGENTS)
def test_only_detection_is_told_the_keys(name: str, tmp_path: Path) -> None:
    """Of a stack's agents: who has no use for a key has none to lose."""
    environ = {"VEIL_LLM_OPENAI_KEY": "k", "VEIL_LLM_REGIONS": "openai=eu", "PATH": "/bin"}
    program = agent_program(name, Settings(data_dir=tmp_path), environ=environ)
    assert ({"VEIL_LLM_OPENAI_KEY", "VEIL_LLM_REGIONS"} <= set(program.env)) == (name == "detection")
    assert program.env["PATH"] == "/bin"


def policy(**llm: Any) -> Any:
    return parse_policy({"id": "p", "version": "1.0.0", "detection": {"llm": llm}})


def test_off_is_what_every_policy_was() -> None:
    """A policy without the part keeps the digest it had; on or with another word, it has another."""
    bare = parse_policy({"id": "p", "version": "1.0.0"})
    assert policy().digest == bare.digest
    assert b'"llm"' not in bare.canonical
    assert bare.detection.llm == LlmPart() and not bare.detection.llm.providers
    digests = {policy(providers=["openai"]).digest, policy(providers=["openai"], send_pii=True).digest, bare.digest}
    assert len(digests) == 3
    again = parse_policy(policy(providers=["openai", "gemini"], on_unavailable="block").canonical)
    assert (again.detection.llm.providers, again.detection.llm.on_unavailable) == (("openai", "gemini"), "block")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such provider": (
        {"providers": ["grok"]},
        "detection.llm.providers.0: must be 'anthropic', 'openai' or 'gemini'",
    ),
    "one twice": (
        {"providers": ["openai", "openai"]},
        "detection.llm.providers: must be a list that names each provider once",
    ),
    "no such strategy": ({"ask_from": "always"}, "detection.llm.ask_from: must be"),
    "allow without a judgement": (
        {"on_unavailable": "allow"},
        "detection.llm.on_unavailable: must be 'review', 'block' or 'as_",
    ),
    "no such field": ({"provider": "openai"}, "detection.llm: has no field provider"),
    "text for yes": ({"send_pii": "yes"}, "detection.llm.send_pii: must be true or false"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_wrong_part_is_refused(kind: str) -> None:
    """With the field and what is allowed there."""
    llm, told = REFUSED[kind]
    with pytest.raises(RecordError) as error:
        policy(**llm)
    assert told in str(error.value)


def test_a_policy_that_looks_for_no_threats_asks_nobody_about_them() -> None:
    """It is refused rather than left without effect."""
    with pytest.raises(RecordError, match=r"detection\.threats: true"):
        parse_policy({"id": "p", "version": "1.0.0", "detection": {"threats": False, "llm": {"providers": ["openai"]}}})
