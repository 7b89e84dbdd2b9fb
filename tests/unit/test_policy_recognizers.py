"""A policy's own recognizers are checked at the edge: what RE2 cannot run is refused with what to do, and nothing is quoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from veilstream.cli.main import app
from veilstream.contracts.errors import RecordError
from veilstream.policy.document import Policy, parse_policy
from veilstream.policy.regexes import widest

PATTERN = {"name": "p", "regex": "SECRET-[0-9]+"}
LOOK_AROUND = "RE2, which has no look-around"
BACK_REFERENCE = "RE2, which has no back-references"
TOO_LARGE = "at most 2500 instructions"


def policy(*recognizers: Any, **detection: Any) -> Policy:
    return parse_policy({"id": "p", "version": "1.0.0", "detection": {"recognizers": list(recognizers), **detection}})


def recognizer(**fields: Any) -> dict[str, Any]:
    return {"name": "own", "entity": "OWN", "patterns": [PATTERN], **fields}


def pattern(regex: str) -> dict[str, Any]:
    return recognizer(patterns=[{"name": "p", "regex": regex}])


AT = "detection.recognizers.0"
REFUSED = [
    ([pattern("SECRET(?=x)")], {}, f"{AT}.patterns.0.regex: must be a pattern for {LOOK_AROUND}"),
    ([pattern("SECRET(?!x)")], {}, LOOK_AROUND),
    ([pattern("(?<=x)SECRET")], {}, LOOK_AROUND),
    ([pattern("(?<!x)SECRET")], {}, LOOK_AROUND),
    ([pattern(r"(SECRET)\1")], {}, BACK_REFERENCE),
    ([pattern("(?P<a>SECRET)(?P=a)")], {}, BACK_REFERENCE),
    ([pattern("(?>SECRET)")], {}, "in the syntax of RE2, github.com/google/re2/wiki/Syntax"),
    ([pattern("SECRET++")], {}, "(RE2 says: bad repetition operator)"),
    ([pattern("(SECRET")], {}, "(RE2 says: missing ))"),
    ([pattern("[SECRET")], {}, "(RE2 says: missing ])"),
    ([pattern("SECRET)|(x")], {}, "(RE2 says: unexpected ))"),
    ([pattern("SECRET{2000}")], {}, "(RE2 says: invalid repetition size)"),
    ([pattern("(?:SECRET.{900}){900}")], {}, "invalid repetition size"),
    ([pattern("(?:.{30}SECRET){30}")], {}, TOO_LARGE),
    ([pattern(r"\pL{3,20}SECRET")], {}, TOO_LARGE),
    ([pattern("(?:SECRET)*")], {}, "does not match the empty text"),
    ([pattern("")], {}, "does not match the empty text"),
    ([pattern("SECRET\ud800")], {}, "text without lone surrogates"),
    ([pattern("SECRET" * 200)], {}, "a pattern of at most 1000 characters"),
    ([pattern(r"\bÖSECRET")], {}, "without \\b beside a letter outside ASCII"),
    ([recognizer(patterns=[])], {}, f"{AT}: must be a recognizer with patterns, a deny_list, or both"),
    ([recognizer(patterns=[PATTERN, PATTERN])], {}, f"{AT}: must be a recognizer whose patterns have different names"),
    ([recognizer(), recognizer()], {}, "detection.recognizers: must be recognizers with different names"),
    ([recognizer(name="SECRET\n")], {}, f"{AT}.name: must be 1 to 64 letters"),
    ([recognizer(entity="Secret")], {}, f"{AT}.entity: must be an entity name"),
    ([recognizer(deny_list=["SECRET", "  "])], {}, f"{AT}.deny_list.1: must be a value with a letter or a digit"),
    ([recognizer(deny_list=["x" * 201])], {}, f"{AT}.deny_list.0"),
    ([recognizer(context=[""])], {}, f"{AT}.context.0"),
    ([recognizer(deny_list_score=0)], {}, f"{AT}.deny_list_score: must be greater than 0"),
    ([recognizer(flags=3)], {}, f"{AT}: has no field flags; its fields are name, entity, patterns"),
    ([recognizer(name=f"n{n}") for n in range(101)], {}, "detection.recognizers"),
    (
        [{**pattern(r"\pLSECRET\pL"), "name": f"n{n}"} for n in range(5)], {},
        "detection.recognizers: must be recognizers whose patterns have at most 10000 instructions",
    ),
    ([recognizer()], {"entities": ["PERSON"]}, "whose detection.recognizers names only entities of detection.entities"),
    ([], {"allow_list": [{"entities": [], "values": ["SECRET"]}]}, "detection.allow_list.0.entities"),
    ([], {"allow_list": [{"entities": ["PERSON"], "values": []}]}, "detection.allow_list.0.values"),
    (
        [], {"entities": ["URL"], "allow_list": [{"entities": ["PERSON"], "values": ["SECRET"]}]},
        "whose detection.allow_list names only entities of detection.entities",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("recognizers", "detection", "message"), REFUSED)
def test_what_is_wrong_is_named_with_its_field_and_never_quoted(
    recognizers: list[Any], detection: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """RE2 itself would write the pattern to standard error."""
    with pytest.raises(RecordError) as refused:
        policy(*recognizers, **detection)
    assert refused.value.reason_code == "invalid_policy"
    assert message in str(refused.value)
    assert "SECRET" not in str(refused.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "regex",
    [r"\bEMP-\d{6}\b", "(?i:x)y", "(?P<a>x)+", r"\(\?=x", "[(?=]x", r"[a-zäöüß]{3,20}", r"\pL+", "ä|ö", "(?s)a.b"],
)
def test_what_re2_can_run_is_taken(regex: str) -> None:
    """Near misses of what is refused."""
    assert policy(pattern(regex)).detection.recognizers[0].patterns[0].regex == regex


def test_all_violations_are_told_at_once() -> None:
    """One for each pattern, by its place."""
    with pytest.raises(RecordError) as refused:
        policy(
            recognizer(patterns=[{"name": "a", "regex": "("}, PATTERN | {"name": "b"}, {"name": "c", "regex": "(?=x)"}])
        )
    told = str(refused.value).split("; ")
    assert [line.split(":")[0] for line in told] == [f"{AT}.patterns.0.regex", f"{AT}.patterns.2.regex"]


def test_a_policy_without_own_recognizers_keeps_its_digest() -> None:
    """Stored versions stay valid; with recognizers or an allow list the digest is another, for each content."""
    plain = parse_policy({"id": "p", "version": "1.0.0"})
    assert policy().digest == plain.digest
    assert b"recognizers" not in plain.canonical
    assert plain.own_rules is None
    rows = [
        policy(recognizer()),
        policy(recognizer(context=["x"])),
        policy(allow_list=[{"entities": ["A"], "values": ["x"]}]),
    ]
    assert len({row.digest for row in (plain, *rows)}) == 4
    assert len({row.own_rules for row in rows}) == 3
    assert [parse_policy(row.canonical).digest for row in rows] == [row.digest for row in rows]


def test_policies_of_equal_rules_share_what_is_compiled() -> None:
    """The digest of the rules does not depend on the rest of the policy."""
    assert policy(recognizer(), score_threshold=0.9).own_rules == policy(recognizer()).own_rules


def test_policy_check_needs_no_cluster(tmp_path: Path) -> None:
    """It tells the digest of a policy, or what is wrong."""
    file = tmp_path / "p.yaml"
    file.write_text("id: p\nversion: 1.0.0\n")
    done = CliRunner().invoke(app, ["policy", "check", str(file)])
    assert done.exit_code == 0
    assert parse_policy(file.read_text()).digest in done.output.replace("\n", "")
    file.write_text("id: p\nversion: 1.0.0\ndetection: {recognizers: [{name: x, entity: X}]}\n")
    refused = CliRunner().invoke(app, ["policy", "check", str(file)])
    assert isinstance(refused.exception, RecordError)
    assert "a recognizer with patterns" in str(refused.exception)


@pytest.mark.parametrize(
    ("regex", "bytes_"),
    [
        (r"\bEMP-\d{6}\b", 40),
        ("[[:alpha:]]", 8),
        ("a{,5}", 20),
        ("a+", None),
        (r"\d{3,}", None),
        (r"\pL", None),
        ("(?:a|b*)c", None),
    ],
)
def test_how_far_a_search_can_look(regex: str, bytes_: int | None) -> None:
    """Counts work; a bound is told only where there is one."""
    assert widest(regex) == bytes_
