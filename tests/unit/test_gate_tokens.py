"""The gate with tokens: what it asks, what it publishes, what it counts. No Kafka."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agents.ingest.gate.gate import Gate
from agents.ingest.gate.step import make_on_failure, make_step
from agents.ingest.gate.tokens import Tokens
from tests.unit.ingest_world import AT_MS, CODEC, World, input_record, request, run
from tests.unit.token_bench import GONE, OTHER, OWN, SET, b64, jwk, key_set, token
from veilstream.contracts import catalogue
from veilstream.contracts.bound import NOT_YET
from veilstream.contracts.errors import Fault, WorldError
from veilstream.contracts.reasons import reasons
from veilstream.contracts.records import DeadLetter, Gated, Redrive, TokenUse
from veilstream.contracts.step import Done, Failure, Item, Output, Record
from veilstream.contracts.token import HEADER, use_id, value_digest
from veilstream.telemetry.access import AccessMetrics
from veilstream.tenancy.token_keys import KeySet, parse_key_set
from veilstream.tenancy.token_rules import BearerRules, TokenRules
from veilstream.verdicts.dead_letters import seal_owned

PLANTED = "Zebediah"
SECRET = request(f"{PLANTED} says hello", user="zeb", conversation="c-1", request_id="r-1")
AT_S = AT_MS // 1000
FAILURE = Failure(Fault.US, "internal_error", "the step raised KeyError")
USE = TokenUse(use_id("acme", "id-1"), (AT_S + 90) * 1000)
TRACE = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


class HeldKeys:
    """A key set; a look once more finds `newer`."""

    def __init__(self, raw: bytes | None = SET, newer: bytes | None = None) -> None:
        self.raw, self.newer = raw, newer
        self.looks = 0

    async def current(self) -> KeySet:
        if self.raw is None:
            raise WorldError("no key set", code="token_keys_unavailable")
        return parse_key_set(self.raw)

    async def refreshed(self) -> KeySet:
        self.looks += 1
        self.raw = self.newer or self.raw
        return await self.current()

    def latest(self) -> KeySet | None:
        return None if self.raw is None else parse_key_set(self.raw)


class Desk:
    """A gate that asks for tokens, and what it counted."""

    def __init__(self, world: World, keys: HeldKeys | None = None, *, required: bool = True, **more: Any) -> None:
        self.world, self.keys = world, keys or HeldKeys()
        self.registry = CollectorRegistry()
        counts = AccessMetrics(self.registry)
        rules = TokenRules(required, bearer=BearerRules())
        tokens = Tokens(rules, self.keys, world.view.revoked, counts)
        self.gate: Gate = replace(world.gate(), tokens=tokens, counts=counts, **more)

    def judged(self, record: Record) -> tuple[Output, ...]:
        (outcome,) = run(make_step(self.gate), Item(record, record))
        assert isinstance(outcome, Done)
        return outcome.outputs

    def gated(self, record: Record) -> Gated:
        (output,) = self.judged(record)
        assert output.topic == catalogue.GATED
        return CODEC.decode(Gated, output.value)

    def failed(self, record: Record) -> tuple[list[Gated], list[DeadLetter]]:
        """What is published for a record the step raised on."""
        outputs = make_on_failure(self.gate)(record, FAILURE)
        gated = [CODEC.decode(Gated, one.value) for one in outputs if one.topic == catalogue.GATED]
        return gated, [CODEC.decode(DeadLetter, one.value) for one in outputs if one.topic == catalogue.DEAD_LETTERS]

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"veil_{name}_total", labels) or 0.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def signed(value: bytes = SECRET, kid: str = "own", **more: Any) -> tuple[str, bytes]:
    times = {"iat": AT_S, "nbf": AT_S, "exp": AT_S + 60, "digest": value_digest(value)}
    return HEADER, token(kid, **times | more).encode()


def record(*headers: tuple[str, Any], value: bytes = SECRET) -> Record:
    return input_record(value, headers=headers)


def codes(gated: Gated) -> list[str]:
    return [one.code for one in gated.refusals]


def test_a_checked_token_is_told_to_admit_and_to_nobody_else(world: World) -> None:
    """The envelope holds its digest and when it may be forgotten; the header itself goes nowhere."""
    (output,) = Desk(world).judged(record(signed(), ("ce_id", b"1")))
    gated = CODEC.decode(Gated, output.value)
    assert (gated.refusals, gated.envelope.token) == ((), USE)
    assert output.headers == (("ce_id", b"1"),)
    assert b"id-1" not in (output.value or b"")


@pytest.mark.parametrize("required", [True, False])
def test_tokens_and_credentials_never_travel_on(world: World, required: bool) -> None:
    """Neither of an accepted nor of a refused record, whatever the header's name looks like."""
    bad = [(HEADER, b"x.y.z"), ("Veil-Token", b"x.y.z"), ("authorization", b"Bearer x.y.z"), ("ce_token", b"kept")]
    for headers in [[signed()], *[[one] for one in bad]]:
        for output in Desk(world, required=required).judged(record(*headers)):
            assert {name for name, _ in output.headers} <= {"ce_token"}
            assert b"x.y.z" not in (output.value or b"")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "token_missing"),
        ([signed(), signed()], "token_duplicate"),
        ([(HEADER, b"x")], "token_malformed"),
        ([signed(SECRET + b" ")], "token_other_record"),
        ([signed(tenant="globex")], "token_wrong_tenant"),
        ([signed(exp=AT_S + 901)], "token_too_long_lived"),
        ([signed(permissions=[])], "token_no_permission"),
        ([signed(kid="other")], "token_unknown_key"),
    ],
)
def test_a_record_refused_for_its_token_tells_its_code_and_no_more(
    world: World, headers: list[tuple[str, Any]], code: str
) -> None:
    """One refusal, in fixed words, audited with its code like every refusing verdict; no content, no key looked up, no letter.

    Of its conversation nothing is derived with the tenant's key.
    """
    desk = Desk(world)
    gated = desk.gated(record(*headers, TRACE))
    assert [(one.code, one.reason, one.fault) for one in gated.refusals] == [(code, reasons()[code].message, "record")]
    assert (gated.payload, gated.envelope.token, gated.envelope.request_id) == (None, None, "r-1")
    assert gated.envelope.lane == desk.gated(record(value=request("b", conversation="c-2"))).envelope.lane
    assert world.waited_for == []
    assert desk.counted("auth_attempts", result=code) > 0
    assert desk.counted("auth_attempts", result="ok") == 0


def test_what_else_is_wrong_is_not_told_to_a_stranger(world: World) -> None:
    """Who has a token reads every violation; who has none reads that."""
    wrong = request(PLANTED, mode="loose", session="x")
    assert codes(Desk(world).gated(record(value=wrong))) == ["token_missing"]
    assert "bad_mode" in codes(Desk(world).gated(record(signed(wrong), value=wrong)))


def test_whether_a_tenant_exists_is_told_to_who_has_a_token_alone(world: World) -> None:
    """A stranger's guess and a known tenant look alike."""
    guess = request("hi", tenant="nobody")
    assert codes(Desk(world).gated(record(value=guess))) == ["token_missing"]
    assert codes(Desk(world).gated(record(signed(guess, tenant="nobody"), value=guess))) == ["unknown_tenant"]


def test_optional_lets_a_record_without_token_through(world: World) -> None:
    """One with a bad token is refused; each is counted."""
    desk = Desk(world, required=False)
    assert [codes(desk.gated(record(*headers))) for headers in ([], [signed()], [(HEADER, b"x")])] == [
        [], [], ["token_malformed"],
    ]  # fmt: skip
    assert [desk.counted("auth_attempts", result=r) for r in ("none", "ok", "token_malformed")] == [1, 1, 1]


def test_off_looks_at_no_token(world: World) -> None:
    """As without this module; nothing is remembered."""
    (output,) = run(make_step(world.gate()), Item(record((HEADER, b"x")), record((HEADER, b"x"))))[0].outputs
    gated = CODEC.decode(Gated, output.value)
    assert (gated.refusals, gated.envelope.token) == ((), None)


def test_a_bearer_is_remembered_likewise(world: World) -> None:
    """It is not bound to the record, and can be used once all the same."""
    name, raw = signed(digest=GONE)
    gated = Desk(world).gated(record(("Authorization", b"Bearer " + raw)))
    assert (codes(gated), gated.envelope.token, name) == ([], USE, HEADER)


def test_who_reaches_for_another_s_is_counted(world: World) -> None:
    """A genuine token under which something else is tried; a forged one is no access attempt of anybody known."""
    desk = Desk(world)
    for headers in (
        [signed(tenant="globex")],
        [signed(permissions=["read"])],
        [signed(aud="x")],
        [],
        [signed(kid="other")],
    ):
        desk.gated(record(*headers))
    assert desk.counted("unauthorized_access_attempts") == 3


def test_a_revoked_token_is_refused(world: World) -> None:
    """From the moment on in which this worker has read of it."""
    desk = Desk(world)
    assert codes(desk.gated(record(signed()))) == []
    tokens = desk.gate.tokens
    assert tokens is not None
    asked: list[tuple[str, bytes]] = []

    def revoked(tenant: str, used: bytes) -> bool:
        asked.append((tenant, used))
        return True

    desk.gate = replace(desk.gate, tokens=replace(tokens, revoked=revoked))
    assert codes(desk.gated(record(signed()))) == ["token_revoked"]
    assert asked == [("acme", USE.id)]


def test_a_new_key_is_looked_for_once(world: World) -> None:
    """A token with a key that is not known here may be the first with a new one."""
    keys = HeldKeys(newer=key_set(jwk(OWN, "own"), jwk(OTHER, "other")))
    assert codes(Desk(world, keys).gated(record(signed(kid="other")))) == []
    assert keys.looks == 1


def test_without_a_key_set_records_wait(world: World) -> None:
    """The partition is held. A record without a token needs no key to be refused."""
    desk = Desk(world, HeldKeys(None))
    with pytest.raises(WorldError):
        desk.judged(record(signed()))
    assert codes(desk.gated(record())) == ["token_missing"]


def test_a_record_that_cannot_be_worked_on_has_a_letter_only_with_a_good_token(world: World) -> None:
    """A letter can be redriven, and a redrive is not asked for its token: a stranger's record must not become one."""
    desk = Desk(world)
    gated, letters = desk.failed(record(signed()))
    assert ([codes(one) for one in gated], [one.tenant for one in letters]) == ([["internal_error"]], ["acme"])
    for headers, code in (([], "token_missing"), ([signed(tenant="globex")], "token_wrong_tenant")):
        gated, letters = desk.failed(record(*headers))
        assert ([codes(one) for one in gated], letters) == ([[code]], [])
    gated, letters = Desk(world, HeldKeys(None)).failed(record(signed()))
    assert ([codes(one) for one in gated], letters) == ([["token_unknown_key"]], [])


@pytest.mark.parametrize(("tenant", "refused"), [("acme", []), ("", ["token_missing"])])
def test_a_redrive_is_not_asked_again(world: World, tenant: str, refused: list[str]) -> None:
    """Its letter names its tenant only where the token was good. One whose tenant could not be read never was asked."""
    place = input_record(SECRET)
    origin = replace(Desk(world, required=False).gated(place).envelope.origin, offset=99)
    world.desk.ask("operations.init")
    ring = world.ring = world.desk.ring_of_its_own()
    redrive = seal_owned(ring, Redrive(origin, 1, "", "cmd-1", tenant, NOT_YET, AT_MS), SECRET)
    gated = Desk(world).gated(Record(catalogue.REDRIVE, 0, 1, 99, None, CODEC.encode(redrive)))
    assert codes(gated) == refused


@pytest.mark.parametrize(
    ("region", "refused"), [(None, []), ("eu", []), ("us", ["wrong_region"]), ("asia", ["wrong_region"])]
)
def test_a_tenant_of_another_region_is_refused_and_counted(
    world: World, region: str | None, refused: list[str]
) -> None:
    """Nothing of the record is opened or kept here."""
    desk = Desk(world, required=False, region=region)
    gated = desk.gated(record())
    assert codes(gated) == refused
    assert (gated.payload is None) == bool(refused)
    assert desk.counted("data_region_violations") == len(refused)


def test_limits_are_named_as_the_gate_knew_them(world: World) -> None:
    """Of a refused record too; of a tenant that is not known here: none."""
    known = world.view.tenant("acme")
    assert known is not None
    desk = Desk(world, required=False)
    assert desk.gated(record()).envelope.limits_from == known.limits_from
    assert desk.gated(record(value=request("hi", tenant="nobody"))).envelope.limits_from == -1


def test_no_metric_names_anybody(world: World) -> None:
    """Labels are results and codes."""
    desk = Desk(world)
    desk.gated(record(signed()))
    desk.gated(record(signed(tenant="globex")))
    labels = {
        value for family in desk.registry.collect() for sample in family.samples for value in sample.labels.values()
    }
    assert labels == {"ok", "token_wrong_tenant"}
    assert b64(b"acme") not in str(labels)
