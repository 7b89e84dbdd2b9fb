"""Decisions: which finding or threat leads to which, and with what reasons."""

from __future__ import annotations

import pytest

from veilstream.contracts.reasons import message
from veilstream.contracts.records import Finding, Layer, Refusal, Span, Threat
from veilstream.policy.document import parse_policy
from veilstream.verdicts.decide import MARKUP, closed, decide

POLICY = parse_policy(
    {"id": "test", "version": "1.0.0", "decision": {"block_entities": ["US_SSN"], "review_entities": ["IBAN_CODE"]}}
)
"""Thresholds are the defaults: strict .3 and .6, moderate .5 and .8, permissive .7 and .95."""
PERMISSIVE = parse_policy({"id": "test", "version": "1.0.0", "detection": {"mode": "permissive"}})


def threat(confidence: float, rule: str = "r", category: str = "instruction_override", start: int = 0) -> Threat:
    return Threat(category, "text", start, start + 5, confidence, "heuristics", rule)


def finding(entity: str, score: float = 0.9, start: int = 0) -> Finding:
    return Finding(entity, "text", start, start + 5, score, "test")


@pytest.mark.parametrize(
    ("findings", "threats", "mode", "expected"),
    [
        ([], [], None, ("allow", 1.0)),
        ([], [threat(0.49)], None, ("allow", 0.51)),
        ([], [threat(0.5)], None, ("review", 0.5)),
        ([], [threat(0.79)], None, ("review", 0.79)),
        ([], [threat(0.8)], None, ("block", 0.8)),
        ([], [threat(0.8), threat(0.1)], None, ("block", 0.8)),
        ([], [threat(0.29)], "strict", ("allow", 0.71)),
        ([], [threat(0.3)], "strict", ("review", 0.3)),
        ([], [threat(0.6)], "strict", ("block", 0.6)),
        ([], [threat(0.6)], "permissive", ("review", 0.6)),
        ([], [threat(0.6)], "a mode of a later release", ("block", 0.6)),
        ([finding("PERSON")], [], None, ("allow", 1.0)),
        ([finding("US_SSN")], [], None, ("block", 0.9)),
        ([finding("IBAN_CODE")], [], None, ("review", 0.9)),
        ([finding("IBAN_CODE"), finding("US_SSN", 0.4)], [], None, ("block", 0.4)),
        ([finding("IBAN_CODE", 0.4)], [threat(0.6)], None, ("review", 0.6)),
        ([finding("IBAN_CODE", 0.4)], [threat(0.1)], None, ("review", 0.4)),
        ([finding("US_SSN", 0.4)], [threat(0.6)], None, ("block", 0.4)),
    ],
)
def test_decision_and_confidence(
    findings: list[Finding], threats: list[Threat], mode: str | None, expected: tuple[str, float]
) -> None:
    """A request may ask for a stricter mode than its policy's, never for a looser one; confidence is the decision's own."""
    decision = decide(findings, threats, POLICY, mode)
    assert (decision.decision, decision.confidence) == expected
    assert decision.delivers == (expected[0] in ("allow", "review"))


@pytest.mark.parametrize(("mode", "expected"), [(None, "review"), ("permissive", "review"), ("moderate", "block")])
def test_a_permissive_policy_is_tightened_by_a_request(mode: str | None, expected: str) -> None:
    """.8 is for review under a permissive policy, and blocks where the request asks for moderate."""
    assert decide([], [threat(0.8)], PERMISSIVE, mode).decision == expected


def test_no_sign_at_all_never_meets_a_threshold_of_zero() -> None:
    """A policy whose thresholds are 0 acts on any sign, not on none."""
    rows = {name: {"review": 0, "block": 0} for name in ("strict", "moderate", "permissive")}
    policy = parse_policy({"id": "test", "version": "1.0.0", "decision": {"thresholds": rows}})
    assert decide([], [], policy, None).decision == "allow"
    assert decide([], [threat(0.01)], policy, None).decision == "block"


def test_reasons_name_rule_source_and_places_and_never_text() -> None:
    """Entities first, then threats, the surest rule first; each place once, in order."""
    decision = decide(
        [finding("US_SSN", 0.5, 30), finding("US_SSN", 0.7, 10)],
        [threat(0.2, "low"), threat(0.9, "high", start=9), threat(0.9, "high", start=2), threat(0.9, "high", start=2),
         threat(0.5, "markup.script_url", "dangerous_markup")],
        POLICY, None,
    )  # fmt: skip
    ssn = (Span("text", 10, 15), Span("text", 30, 35))
    assert [(r.code, r.category, r.confidence, r.source, r.rule, r.spans) for r in decision.reasons] == [
        ("blocked_entity", "US_SSN", 0.7, "test", "", ssn),
        ("threat", "instruction_override", 0.9, "heuristics", "high", (Span("text", 2, 7), Span("text", 9, 14))),
        (MARKUP, MARKUP, 0.5, "heuristics", "markup.script_url", (Span("text", 0, 5),)),
    ]
    assert [r.message for r in decision.reasons] == [message(r.code) for r in decision.reasons]


@pytest.mark.parametrize(
    ("confidence", "mode", "expected"),
    [
        (0.2, None, ("allow", [])),
        (0.49, None, ("allow", [])),
        (0.5, None, ("review", ["threat"])),
        (0.29, "strict", ("allow", [])),
        (0.3, "strict", ("review", ["threat"])),
        (0.8, None, ("block", ["threat"])),
    ],
)
def test_a_sign_below_the_review_threshold_is_no_reason(
    confidence: float, mode: str | None, expected: tuple[str, list[str]]
) -> None:
    """Of the mode that holds. An allowed record has no threat for a reason; beside a sign that counts a weak one is none."""
    weak = threat(0.1, "weak")
    decision = decide([], [weak, threat(confidence)], POLICY, mode)
    assert (decision.decision, [r.code for r in decision.reasons]) == expected
    assert decision.confidence == (round(1 - confidence, 6) if expected[0] == "allow" else confidence)


def test_what_is_told_for_the_texts_own_sake_is_told_of_an_allowed_record() -> None:
    """Markup that programs may run, and advice on the form: they accuse nobody."""
    told = [threat(0.2, "markup.script_url", MARKUP), threat(0.0, "advice.roles", "format_advice"), threat(0.2)]
    decision = decide([], told, POLICY, None)
    assert (decision.decision, [r.code for r in decision.reasons]) == ("allow", [MARKUP, "format_advice"])


@pytest.mark.parametrize(
    ("refusals", "expected"),
    [
        ([Refusal("text_too_long", "100,001 characters")], "refused"),
        ([Refusal("unknown_tenant", "no such tenant", "tenant")], "refused"),
        ([Refusal("key_unavailable", "no key", "tenant")], "block"),
        ([Refusal("policy_unavailable", "late", "tenant")], "block"),
        ([Refusal("erased", "gone", "erased")], "block"),
        ([Refusal("internal_error", "the step raised KeyError", "us")], "block"),
        ([Refusal("a_code_of_a_later_release", "new", "record")], "block"),
        ([Refusal("text_too_long", "100,001 characters"), Refusal("internal_error", "bug", "us")], "refused"),
    ],
)
def test_a_record_that_was_not_judged(refusals: list[Refusal], expected: str) -> None:
    """Refused where its sender can mend it, else blocked; it never delivers, and is certain."""
    decision = closed(refusals)
    assert (decision.decision, decision.confidence, decision.delivers) == (expected, 1.0, False)
    assert [r.code for r in decision.reasons] == [r.code for r in refusals]


def test_only_a_senders_reason_is_told_in_the_agents_words() -> None:
    """The words of an internal failure stay in the dead letter; each refusal is told once."""
    refusals = [
        Refusal("wrong_type", "text must be a string"),
        Refusal("internal_error", "the step raised KeyError", "us"),
    ]
    assert [(r.message, r.category) for r in closed([*refusals, *refusals]).reasons] == [
        ("text must be a string", "record"),
        (message("internal_error"), "us"),
    ]


@pytest.mark.parametrize(("waits", "told"), [([], None), ([None], None), ([4], 4), ([1, None, 15, 2], 15)])
def test_a_refused_sender_is_told_the_longest_wait(waits: list[int | None], told: int | None) -> None:
    """Where several refuse, sending again before the last of them is over would only be refused again."""
    refusals = [Refusal(f"quota_{n}", "used up", "tenant", wait) for n, wait in enumerate(waits)]
    assert closed(refusals).retry_after_s == told


SPOKE, ABSENT = Layer("llm", "spoke", "openai"), Layer("llm", "timeout", "openai")
RULES = Layer("heuristics", "spoke")
UNJUDGED: dict[str, tuple[str, list[Layer], float, str]] = {
    "no such layer": ("review", [RULES], 0.0, "allow"),
    "one spoke": ("block", [RULES, SPOKE], 0.0, "allow"),
    "one of two spoke": ("block", [RULES, ABSENT, SPOKE], 0.0, "allow"),
    "not needed": ("block", [RULES, Layer("llm", "not_needed")], 0.0, "allow"),
    "early end, and the threshold above it": ("block", [RULES, Layer("llm", "early_end")], 0.6, "review"),
    "none spoke": ("review", [RULES, ABSENT, ABSENT], 0.0, "review"),
    "none spoke, review anyway": ("review", [RULES, ABSENT], 0.6, "review"),
    "none spoke, block anyway": ("review", [RULES, ABSENT], 0.8, "block"),
    "a word of a later release": ("review", [RULES, Layer("llm", "fell_asleep", "openai")], 0.0, "review"),
    "block instead": ("block", [RULES, ABSENT], 0.0, "block"),
    "block instead of review": ("block", [RULES, ABSENT], 0.6, "block"),
    "block anyway": ("block", [RULES, ABSENT], 0.8, "block"),
    "as found": ("as_found", [RULES, ABSENT], 0.0, "allow"),
    "as found, review": ("as_found", [RULES, ABSENT], 0.6, "review"),
    "as found, block": ("as_found", [RULES, ABSENT], 0.8, "block"),
}


@pytest.mark.parametrize("kind", UNJUDGED)
def test_a_judgement_that_was_wanted_and_not_had(kind: str) -> None:
    """It makes a decision more severe, or leaves it as rules and model have it, as the policy says; it is told as a reason."""
    instead, layers, confidence, expected = UNJUDGED[kind]
    llm = {"providers": ["openai"], "on_unavailable": instead}
    policy = parse_policy({"id": "test", "version": "1.0.0", "detection": {"llm": llm}})
    threats = [threat(confidence)] if confidence else []
    decision = decide([], threats, policy, None, layers)
    assert decision.decision == expected
    told = [reason.code for reason in decision.reasons if reason.code == "llm_unavailable"]
    absent = all(layer.status not in ("spoke", "not_needed", "early_end") for layer in layers[1:])
    assert bool(told) == (len(layers) > 1 and absent and instead != "as_found")
