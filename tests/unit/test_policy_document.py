"""A policy document is checked at the edge: every message names the field and what is allowed there, never a value."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from veilstream.contracts.errors import ConfigError, RecordError
from veilstream.policy import document
from veilstream.policy.actions import Hash, Mask, Preserve, Redact, Replace
from veilstream.policy.document import Policy, parse_policy, shipped

BASE: dict[str, Any] = {"id": "p", "version": "1.0.0"}
CANONICAL = (
    b'{"actions":{"PERSON":{"action":"mask","char":"*","keep_last":2}},'
    b'"decision":{"block_entities":[],"review_entities":[],"thresholds":{'
    b'"moderate":{"block":0.8,"review":0.5},"permissive":{"block":0.95,"review":0.7},"strict":{"block":0.6,"review":0.3}}},'
    b'"default_action":{"action":"replace","new_value":"<ENTITY>"},"description":"",'
    b'"detection":{"entities":null,"language":"en","mode":"moderate","score_threshold":0.35,"threats":true,"unnamed_fields":"judged"},'
    b'"id":"p","name":"","version":"1.0.0"}'
)
ENTITY_FORM = "must be an entity name: upper case letters, digits and _, as EMAIL_ADDRESS"
VERSION_FORM = 'must be a quoted semantic version as "1.2.3" or "1.2.3-rc.1", without +build, at most 64 characters'


def policy(**fields: Any) -> Policy:
    return parse_policy(BASE | fields)


@pytest.mark.parametrize(
    "source",
    [
        BASE | {"actions": {"PERSON": {"action": "mask", "keep_last": 2}}},
        "id: p\nversion: 1.0.0\nactions: {PERSON: {action: mask, keep_last: 2}}",
        b"# a comment\nversion: '1.0.0'\nid: p\nactions:\n  PERSON:\n    keep_last: 2\n    action: mask\n",
        ' {"version": "1.0.0", "id": "p", "actions": {"PERSON": {"action": "mask", "keep_last": 2, "char": "*"}}}',
        CANONICAL,
    ],
    ids=["object", "yaml", "yaml bytes, other order", "json with a default written out", "its own canonical form"],
)
def test_one_policy_has_one_canonical_form_and_digest_however_it_is_written(source: Any) -> None:
    """YAML, JSON, field order and defaults written out or not make no difference."""
    parsed = parse_policy(source)
    assert parsed.canonical == CANONICAL
    assert parsed.digest == hashlib.sha256(CANONICAL).hexdigest()


@pytest.mark.parametrize(
    ("fields", "other"),
    [
        ({"detection": {"entities": ["URL", "PERSON", "URL"]}}, {"detection": {"entities": ["PERSON", "URL"]}}),
        ({"detection": {"score_threshold": 1}}, {"detection": {"score_threshold": 1.0}}),
        ({"actions": {"PERSON": "redact"}}, {"actions": {"PERSON": {"action": "redact"}}}),
    ],
    ids=["order of entities", "1 and 1.0", "short form"],
)
def test_what_means_the_same_has_the_same_digest(fields: dict[str, Any], other: dict[str, Any]) -> None:
    """Sets have no order, numbers no spelling, and the short form of an action is the action."""
    assert policy(**fields).digest == policy(**other).digest


def test_what_means_something_else_has_another_digest() -> None:
    """All entities and no entity, and two versions of one text, differ."""
    rows = [policy(), policy(detection={"entities": []}), policy(version="1.0.1"), policy(detection={"threats": False})]
    assert len({row.digest for row in rows}) == 4


REFUSED = [
    ({"id": "p"}, "version is missing"),
    (BASE | {"id": "a/b"}, "id: must be 1 to 64 of A-Z a-z 0-9 _ . -"),
    (BASE | {"version": 1.0}, "version: must be text"),
    (BASE | {"version": "1.0"}, f"version: {VERSION_FORM}"),
    (
        BASE | {"extra": 1, "Jane Roe": 2},
        "the policy: has no field extra, ?; its fields are id, version, name, description, detection, actions, "
        "default_action, decision",
    ),
    (BASE | {"name": "\ud800"}, "name: must be text without lone surrogates"),
    (BASE | {"actions": []}, "actions: must be a mapping of fields"),
    (BASE | {"actions": {"Person": "mask"}}, f"actions.Person: {ENTITY_FORM}"),
    (BASE | {"actions": {"EMAIL-ADDRESS": "mask"}}, f"actions.EMAIL-ADDRESS: {ENTITY_FORM}"),
    (BASE | {"actions": {"PERSON ": "mask"}}, f"actions.?: {ENTITY_FORM}"),
    (
        BASE | {"actions": {"PERSON": "tokenise"}},
        "actions.PERSON.action must be one of hash, mask, preserve, redact, replace",
    ),
    (
        BASE | {"actions": {"PERSON": {}}},
        "actions.PERSON.action must be one of hash, mask, preserve, redact, replace",
    ),
    (BASE | {"actions": {"PERSON": 5}}, "actions.PERSON: must be a mapping of fields"),
    (
        BASE | {"actions": {"PERSON": {"action": "mask", "keep": 4}}},
        "actions.PERSON: has no field keep; its fields are action, char, keep_last",
    ),
    (
        BASE | {"actions": {"PERSON": {"action": "redact", "char": "*"}}},
        "actions.PERSON: has no field char; its fields are action",
    ),
    (
        BASE | {"actions": {"PERSON": {"action": "mask", "keep_last": "4"}}},
        "actions.PERSON.keep_last: must be a whole number",
    ),
    (
        BASE | {"actions": {"PERSON": {"action": "mask", "keep_last": 9}}},
        "actions.PERSON.keep_last: must be less than or equal to 8",
    ),
    (
        BASE | {"actions": {"PERSON": {"action": "mask", "char": "x"}}},
        "actions.PERSON.char: must be one visible character, no letter or digit",
    ),
    (
        BASE | {"actions": {"PERSON": {"action": "mask", "char": "**"}}},
        "actions.PERSON.char: must be one visible character, no letter or digit",
    ),
    (BASE | {"detection": {"entities": "all"}}, "detection.entities: must be a list"),
    (BASE | {"detection": {"entities": ["URL", "Url"]}}, f"detection.entities.1: {ENTITY_FORM}"),
    (
        BASE | {"detection": {"language": "english"}},
        "detection.language: must be a language code of two letters, as en",
    ),
    (
        BASE | {"detection": {"score_threshold": 1.01}},
        "detection.score_threshold: must be less than or equal to 1",
    ),
    (
        BASE | {"detection": {"score_threshold": float("nan")}},
        "detection.score_threshold: must be less than or equal to 1",
    ),
    (BASE | {"detection": {"threats": "yes"}}, "detection.threats: must be true or false"),
    (BASE | {"detection": {"mode": "lax"}}, "detection.mode: must be 'strict', 'moderate' or 'permissive'"),
    (
        BASE | {"decision": {"thresholds": {"strict": {"review": 0.6, "block": 0.5}}}},
        "decision.thresholds.strict: must be a pair with review at most block",
    ),
    (
        BASE | {"decision": {"thresholds": {"strict": {"review": 0.3, "block": 0.81}}}},
        "decision.thresholds: must be thresholds with strict at most moderate at most permissive, for review and for block",
    ),
    (
        BASE | {"decision": {"block_entities": ["US_SSN"], "review_entities": ["US_SSN"]}},
        "the policy: must be a policy whose decision.block_entities and decision.review_entities share no entity",
    ),
    (
        BASE | {"detection": {"entities": ["US_SSN"]}, "decision": {"block_entities": ["US_SSSN"]}},
        "the policy: must be a policy whose decision.block_entities names only entities of detection.entities",
    ),
    (
        BASE | {"detection": {"entities": ["US_SSN"]}, "actions": {"SSN": "redact"}},
        "the policy: must be a policy whose actions names only entities of detection.entities",
    ),
    (
        BASE | {"detection": {"language": "x", "mode": 1}},
        "detection.language: must be a language code of two letters, as en; "
        "detection.mode: must be 'strict', 'moderate' or 'permissive'",
    ),
    ("", "the policy: must be a mapping of fields"),
    ("- id: p", "the policy: must be a mapping of fields"),
    ("id: p\nid: q\nversion: 1.0.0", "the policy has a key twice in the mapping at line 1: keep one"),
    ("id: p\nactions:\n  URL: mask\n  URL: hash", "the policy has a key twice in the mapping at line 3: keep one"),
    ("id: &x p\nversion: *x", "the policy uses a YAML alias (*name): write the value out"),
    ("id: p\nname: [secret", "the policy is not valid YAML: look at line 2"),
    ("id: !!python/name:os.system p", "the policy is not valid YAML: look at line 1"),
    ("[" * 50_000, "the policy is not valid YAML"),
    ('{"id": "p", "id": "q"}', "the policy has a key twice in one object: keep one"),
    ('{"id": NaN}', "the policy holds NaN or Infinity, which JSON does not have"),
    ('{"id": "p"', "the policy is not valid JSON"),
    ('{"a":' * 50_000, "the policy is not valid JSON"),
    (b'{"id": "\xff"}', "the policy is not valid JSON"),
    ("#" * (256 * 1024 + 1), "the policy has more than 262144 bytes: make it shorter"),
]


@pytest.mark.parametrize(("source", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_a_wrong_document_is_refused_with_the_field_and_what_is_allowed(source: Any, message: str) -> None:
    """The message is the whole answer: path and rule, all violations, and no value."""
    with pytest.raises(RecordError) as caught:
        parse_policy(source)
    assert str(caught.value) == message
    assert caught.value.reason_code == "invalid_policy"


def test_twenty_violations_are_told_and_the_rest_counted() -> None:
    """A message has an end."""
    with pytest.raises(RecordError) as caught:
        policy(actions={f"E{n}": {"action": "mask", "keep_last": -1} for n in range(23)})
    assert str(caught.value).count("keep_last") == 20
    assert str(caught.value).endswith("; and 3 more")


@pytest.mark.parametrize(
    ("entity", "action"),
    [
        ("US_SSN", Redact()),
        ("CREDIT_CARD", Mask(char="#", keep_last=4)),
        ("PERSON", Replace(new_value="somebody")),
        ("CRYPTO", Hash()),
        ("URL", Preserve()),
        ("URLS", Replace()),
    ],
)
def test_an_entity_has_its_action_or_the_default(entity: str, action: object) -> None:
    """What the policy does not name gets the default action; names are matched whole."""
    actions = {
        "US_SSN": "redact",
        "CREDIT_CARD": {"action": "mask", "char": "#", "keep_last": 4},
        "PERSON": {"action": "replace", "new_value": "somebody"},
        "CRYPTO": "hash",
        "URL": "preserve",
    }
    assert policy(actions=actions).action_for(entity) == action


@pytest.mark.parametrize(
    ("new_value", "text"),
    [("<ENTITY>", "<PERSON>"), ("", ""), ("[<ENTITY> removed]", "[<PERSON> removed]"), ("<entity>", "<entity>")],
)
def test_replace_writes_the_entity_where_the_mark_stands(new_value: str, text: str) -> None:
    """`<ENTITY>` stands for the entity's name; nothing else is special."""
    assert Replace(new_value=new_value).text_for("PERSON") == text


@pytest.mark.parametrize(
    ("own", "requested", "mode", "block"),
    [
        ("moderate", None, "moderate", 0.8),
        ("moderate", "strict", "strict", 0.6),
        ("moderate", "permissive", "moderate", 0.8),
        ("strict", "moderate", "strict", 0.6),
        ("permissive", "moderate", "moderate", 0.8),
        ("permissive", "permissive", "permissive", 0.95),
        ("permissive", "STRICT", "strict", 0.6),
    ],
)
def test_a_request_tightens_the_mode_and_never_loosens_it(
    own: str, requested: str | None, mode: str, block: float
) -> None:
    """The stricter of the two holds; a mode not known here counts as strict."""
    judged = policy(detection={"mode": own})
    assert judged.mode(requested) == mode
    assert judged.thresholds(requested).block == block


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("default", "693c18b34e2e46b0b4d0cf9dc1522b139e1630a920e5cf16a745feceb45f504f"),
        ("patterns", "d159c5a265390d83efc708fb88ab7e6611cc8b62875262af6ae981bb6329f299"),
    ],
)
def test_a_shipped_policy_keeps_its_digest_under_its_version(name: str, digest: str) -> None:
    """Versions never change: a new content of a shipped policy needs a new version, and then a new row here."""
    assert (shipped(name).id, shipped(name).version) == (name, "1.0.0")
    assert shipped(name).digest == digest


def test_a_profile_is_in_the_digest_where_it_is_not_the_one_there_always_was() -> None:
    """A policy without the field keeps the digest it had; another profile is another content."""
    assert policy(detection={"profile": "parity"}).digest == policy().digest
    assert policy(detection={"profile": "fast"}).digest != policy().digest
    assert parse_policy(policy(detection={"profile": "fast"}).canonical).detection.profile == "fast"


def test_the_default_policy_blocks_nothing_for_pii_and_takes_out_what_it_does_not_name() -> None:
    """Few false alarms: safe text is delivered; fail closed: an unnamed entity is replaced."""
    default = shipped()
    assert default.detection.entities is None
    assert default.decision.block_entities == default.decision.review_entities == ()
    assert default.action_for("TENANTS_OWN_ENTITY") == Replace()
    assert default.action_for("US_SSN") == Redact()
    assert default.action_for("DATE_TIME") == Preserve()


def test_the_pattern_policy_needs_no_language_model() -> None:
    """Not one of its entities comes from named entity recognition."""
    entities = shipped("patterns").detection.entities
    assert entities is not None
    assert len(entities) == 13
    assert not {"PERSON", "LOCATION", "NRP", "ORGANIZATION", "DATE_TIME"} & set(entities)


def test_a_missing_shipped_policy_says_what_to_do() -> None:
    """The file is named, and the way out."""
    with pytest.raises(ConfigError) as caught:
        shipped("none")
    assert str(caught.value) == "veilstream/policy/none.yaml is missing or damaged: install veilstream again"


def test_a_policy_cannot_be_changed() -> None:
    """Every part is frozen."""
    with pytest.raises(ValueError, match="frozen"):
        shipped().detection.threats = False
    assert document.POLICIES.joinpath("default.yaml").is_file()
