"""Doors of keys: wrapped keys moved on veil.keys, and names that make two keys one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.rig import Rig
from veilstream.contracts.errors import VeilError
from veilstream.contracts.records import Key
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import LocalFile


def ring(rig: Rig, *entries: Key) -> KeyRing:
    """A key ring as an agent has it, with the rig's own master key and these rows of veil.keys."""
    found = KeyRing(LocalFile(rig.folder / "keys"))
    for entry in entries:
        found.apply(entry)
    return found


def moved(change: str, rig: Rig) -> str:
    """aaa's wrapped key in an entry of bbb: whoever writes veil.keys could make aaa's key bbb's."""
    mine, other = rig.key_entry("aaa"), rig.key_entry("bbb")
    forged = {
        "aaa's wrapped key under bbb's id": replace(other, wrapped=mine.wrapped),
        "aaa's entry renamed to bbb": replace(mine, tenant="bbb", key_id="bbb/7", version=7),
        "aaa's entry, tenant alone changed": replace(mine, tenant="bbb", version=7),
        "aaa's wrapped key as the operations key": replace(mine, tenant="", key_id="operations/7", scope="operations"),
    }[change]
    keys = ring(rig, mine, other, forged)
    try:
        found = keys.by_id(forged.key_id, forged.tenant)
    except VeilError as exc:
        return str(exc.reason_code)
    if found.seal == ring(rig, mine).by_id(mine.key_id, "aaa").seal:
        raise Crossed("aaa's key opens under another name")
    return "another key"


def unmoved(rig: Rig) -> None:
    """Entries as they stand open, each its own key."""
    mine, other = rig.key_entry("aaa"), rig.key_entry("bbb")
    keys = ring(rig, mine, other)
    assert keys.of_tenant("aaa").seal != keys.of_tenant("bbb").seal


CHANGES = ("aaa's wrapped key under bbb's id", "aaa's entry renamed to bbb", "aaa's entry, tenant alone changed",
           "aaa's wrapped key as the operations key")  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrapped_key_is_bound_to_its_tenant(change: str, rig: Rig, tally: Tally) -> None:
    """A wrapped key unwraps under its own id and tenant alone."""
    tally.shut(Door("key", change, partial(moved, change), unmoved), rig)


def asked_by_another(rig: Rig) -> str:
    """A record of bbb that names aaa's key."""
    keys = ring(rig, rig.key_entry("aaa"), rig.key_entry("bbb"))
    try:
        keys.by_id(rig.key_entry("aaa").key_id, "bbb")
    except VeilError as exc:
        return str(exc.reason_code)
    raise Crossed("bbb gets aaa's key")


def test_a_key_is_given_to_its_tenant(rig: Rig, tally: Tally) -> None:
    """A key's id is no permission."""
    tally.shut(Door("key", "aaa's key id asked for as bbb", asked_by_another, unmoved), rig)
