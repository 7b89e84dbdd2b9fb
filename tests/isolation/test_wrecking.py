"""Doors that end the rig where they are open, so they come last: a key that holds the gate, a name that holds policy."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.rig import CODEC, Rig
from tests.isolation.shots import codes_of, plain
from tests.isolation.signing import token
from tests.isolation.test_keys import unmoved
from veilstream.contracts import catalogue
from veilstream.contracts.records import CommandResult, Gated, Key


def proved(tenant: str) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """A record with its token: the gate may ask for one by now."""
    value = plain(tenant)
    return value, (token(tenant, value, signer="issuer"),)


def judge(rig: Rig, tenant: str) -> None:
    value, headers = proved(tenant)
    rig.judged(value, headers=headers)


def put_in(rig: Rig) -> str:
    """The policy agent's principal is stolen, and aaa's wrapped key is put on veil.keys as the next one of ccc."""
    mine = rig.key_entry("aaa")
    forged = replace(mine, tenant="ccc", key_id="ccc/2", version=2)
    judge(rig, "ccc")
    rig.put("policy", catalogue.KEYS, CODEC.encode(forged), key=b"ccc/2")
    rig.observer.wait(Key, lambda key: key.key_id == "ccc/2")
    value, headers = proved("ccc")
    origin = rig.ask(value, headers=headers)
    for _ in range(4):  # whatever partition it stands on
        judge(rig, "aaa")
        judge(rig, "bbb")
    found = rig.observer.outcome(origin)
    if codes := codes_of(found):
        return f"refused: {codes[0]}; others go on"
    gated: Gated = rig.observer.wait(Gated, lambda g: g.envelope.origin == found.origin).record
    if gated.payload is None or gated.payload.key_id == "ccc/2":
        raise Crossed("ccc's records are sealed under aaa's key")
    return "not taken up; all go on"


def test_a_wrapped_key_put_on_the_topic(rig: Rig, tally: Tally) -> None:
    """No agent seals under it, and no other tenant waits for it."""
    tally.shut(Door("key", "aaa's wrapped key as ccc's next one, by a stolen policy", put_in, unmoved), rig)


TAKEN = ("operations", "checkpoints")
"""The operations key's name, and the last word of a topic of the catalogue that a tenant's own topics would meet."""


def taken_name(name: str, rig: Rig) -> str:
    """A tenant under a name of the product's own."""
    told: CommandResult = rig.command("tenant.create", {}, tenant=name)
    if told.status == "done":
        raise Crossed(f"there is a tenant {name} now")
    return f"refused: {told.code}"


def plain_name(rig: Rig) -> None:
    rig.done("tenant.create", {}, tenant="operation")


@pytest.mark.parametrize("name", TAKEN)
def test_a_tenant_with_a_name_of_the_product_s_own(name: str, rig: Rig, tally: Tally) -> None:
    """Its key would have the id of the operations key, its topics the names of ours."""
    tally.shut(Door("tenant", f"named {name}", partial(taken_name, name), plain_name), rig)
