"""What leaves the house, and what does not: PII, whatever a policy looks for; words of a text in logs, metrics, exceptions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pytest
import structlog
from prometheus_client import generate_latest

from tests.unit.llm_server import PROVIDERS, Server, fails, judges, responds, writes
from tests.unit.llm_world import ALL, asked, case, world
from veilstream.contracts.content import TextField
from veilstream.contracts.errors import TenantError, WorldError
from veilstream.contracts.layers import SPOKE
from veilstream.contracts.records import Finding
from veilstream.detection.model import Detection, DetectionConfig, DetectionRequest
from veilstream.detection.threats.llm.masking import masked
from veilstream.policy.llm import LlmPart
from veilstream.telemetry.logs import configure_logs

pytestmark = pytest.mark.timeout(60)
NAME, MAIL = "Zebediah Quackenbush", "zeb@quack.example"
TEXT = f"I am {NAME}, write to {MAIL} and ignore the rest."


def pii(text: str, value: str, kind: str, score: float = 0.85, path: str = "text") -> Finding:
    start = text.index(value)
    return Finding(kind, path, start, start + len(value), score, "test")


FOUND = (pii(TEXT, NAME, "PERSON", 0.1), pii(TEXT, MAIL, "EMAIL_ADDRESS"))

MASKED: dict[str, tuple[tuple[Finding, ...], str]] = {
    "nothing": ((), TEXT),
    "both, the weak one too": (FOUND, "I am <PERSON>, write to <EMAIL_ADDRESS> and ignore the rest."),
    "in any order": (FOUND[::-1], "I am <PERSON>, write to <EMAIL_ADDRESS> and ignore the rest."),
    "one in another": (
        (*FOUND, pii(TEXT, "quack.example", "URL")), "I am <PERSON>, write to <EMAIL_ADDRESS> and ignore the rest.",
    ),
    "across each other": (
        (pii(TEXT, "Zebediah Quack", "PERSON"), pii(TEXT, "Quackenbush,", "ORGANIZATION")),
        f"I am <PERSON> write to {MAIL} and ignore the rest.",
    ),
    "touching": (
        (pii(TEXT, "Zebediah", "PERSON"), pii(TEXT, " Quackenbush", "PERSON")),
        f"I am <PERSON><PERSON>, write to {MAIL} and ignore the rest.",
    ),
    "the same twice": ((FOUND[0], FOUND[0]), f"I am <PERSON>, write to {MAIL} and ignore the rest."),
    "of another field": ((pii(TEXT, NAME, "PERSON", path="other"),), TEXT),
    "all of it": ((Finding("PERSON", "text", 0, len(TEXT), 0.5, "t"),), "<PERSON>"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKED)
def test_findings_become_their_kinds(kind: str) -> None:
    """Each run of findings that overlap is replaced by the longest one's kind; nothing of a value is left."""
    findings, text = MASKED[kind]
    assert masked(TextField("text", TEXT), findings) == text


FULL = DetectionConfig()
CONFIGS = {
    "the whole search": (FULL, False),
    "some entities": (DetectionConfig(entities=("EMAIL_ADDRESS",)), True),
    "no search": (DetectionConfig(entities=()), True),
    "no names": (DetectionConfig(profile="fast"), True),
}


@pytest.mark.parametrize("kind", CONFIGS)
async def test_no_pii_is_sent_whatever_the_policy_looks_for(kind: str) -> None:
    """Where its own search is not the whole one, the whole one is made for what leaves; the verdict's findings stay its own."""
    config, again = CONFIGS[kind]
    own = () if again else FOUND
    async with world(Server(usually=fails(500)), llm_attempts=2) as one:
        one.found = FOUND
        detection = await one.one(case(TEXT, findings=own, config=config))
        assert [name for name, _ in asked(detection)] == list(PROVIDERS)
        assert len(one.server.asked) == 6
        for request in one.server.asked:
            assert NAME.encode() not in request.raw
            assert MAIL.encode() not in request.raw
            assert "I am <PERSON>, write to <EMAIL_ADDRESS>" in request.data
        assert detection.findings == own
        assert [r.config for r in one.searched] == [DetectionConfig(threats=False, format_check=False)] * again


async def test_a_tenant_may_say_otherwise() -> None:
    """`send_pii: true`: the text as it is, and no second search."""
    async with world(providers=("openai",)) as one:
        await one.one(
            case(TEXT, findings=FOUND, llm=LlmPart(providers=("openai",), ask_from="heuristics", send_pii=True))
        )
        (request,) = one.server.asked
    assert TEXT in request.data
    assert one.searched == []


async def test_where_pii_cannot_be_told_nothing_is_sent() -> None:
    """The search fails for this record: it counts as unjudged. A service that is away holds the partition, as ever."""

    async def fails_for_it(_: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
        raise TenantError("no", code="unsupported_entity")

    async def away(_: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
        raise WorldError("away")

    async with world(providers=("anthropic",)) as one:
        narrow = case(TEXT, config=DetectionConfig(entities=()))
        (detection,) = await one.judge.judged([narrow], fails_for_it)
        assert asked(detection) == [("", "pii_unknown")]
        with pytest.raises(WorldError):
            await one.judge.judged([narrow], away)
        assert one.server.asked == []


async def test_paths_and_ids_stay_here() -> None:
    """Keys of a document may be names: only texts and known roles leave, and nothing says whose they are."""
    fields = (TextField(f"document.{NAME}.note", "hello"), TextField("messages[0].content", "hi", "user"))
    async with world() as one:
        await one.one(case(fields=fields, tenant="tenant-of-somebody"))
        (request,) = one.server.asked
        assert "text 1 text" in request.data
        assert "text 2 user" in request.data
        assert NAME.encode() not in request.raw + request.path.encode()
        everything = request.raw.decode() + repr(request.headers) + request.path
        assert "tenant-of-somebody" not in everything


async def test_no_word_of_text_answer_or_key_is_logged_or_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the lowest level, with every library heard, in good days and bad: servers that quote the text in errors and answers."""
    monkeypatch.setattr(logging.root, "handlers", [])
    configure_logs("debug")
    word = "xylophagous"
    levels = {
        name: logging.getLogger(name).level for name in ("openai", "anthropic", "google_genai", "httpx2", "httpcore2")
    }
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.DEBUG)
        for does in (judges(), fails(500), fails(400), fails(429), writes(f"{word}!"), responds({word: word})):
            async with world(Server(usually=does)) as one:
                await one.one(case(f"{word} text"))
                measured = generate_latest(one.registry).decode()
                assert word not in measured
                assert "key-of" not in measured
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    said = capsys.readouterr()
    assert said.err.count('"logger": "httpcore2') > 10  # they were heard
    assert word not in said.err + said.out
    assert "key-of" not in said.err + said.out


async def test_a_reply_does_not_show_itself() -> None:
    """Neither provider nor reply has a text in its repr, where a traceback or debugger would print it."""
    async with world() as one:
        provider = one.judge.providers["anthropic"]
        assert "key-of" not in repr(provider)
        assert "key-of" not in repr(one.judge)
        assert asked(await one.one(case(llm=ALL))) == [("anthropic", SPOKE)]
