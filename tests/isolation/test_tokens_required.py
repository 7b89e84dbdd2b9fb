"""Doors of a gate that asks every record for a token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.isolation.doors import Door, Tally
from tests.isolation.rig import CODEC, Rig, restart
from tests.isolation.shots import avro, plain, sealed_for, stopped
from tests.isolation.signing import token

pytestmark = pytest.mark.long
WITHOUT: dict[str, Callable[[Rig], bytes]] = {
    "JSON": lambda rig: plain("bbb"),
    "Avro": lambda rig: avro("bbb"),
    "sealed to bbb": lambda rig: CODEC.encode(sealed_for(rig, "bbb")),
    "a tenant that is none": lambda rig: plain("nobody-at-all"),
}


def asked(rig: Rig) -> None:
    """The gate is started anew, and a record with its token is judged."""
    rig.once("tokens are required", lambda: restart(rig, "gate", VEIL_TOKEN_MODE="required"))
    value = avro("bbb")
    rig.judged(value, headers=[token("bbb", value)])


def attempt(what: str, name: str, rig: Rig) -> str:
    """A record without a token, or with one in a header of another name."""
    value = WITHOUT[what](rig)
    headers = [(name, token("bbb", value)[1])] if name else []
    return stopped(rig.observer.outcome(rig.ask(value, headers=headers)), "token_missing")


DOORS = [
    Door("token", f"{what}, {f'token in {name}' if name else 'no token'}, where one is required",
         partial(attempt, what, name), asked)
    for what in WITHOUT for name in ("", "token", "authorization")
]  # fmt: skip


@pytest.mark.parametrize("door", DOORS, ids=str)
def test_no_record_without_a_token(door: Door, rig: Rig, tally: Tally) -> None:
    """Nobody speaks for a tenant without proof, and nobody is told whether there is such a tenant."""
    tally.shut(door, rig)
