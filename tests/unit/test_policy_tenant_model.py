"""Any sequence of lifecycle commands leaves what a few plain variables say: status, key version, history of limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy_desk import Desk
from veilstream.contracts import catalogue
from veilstream.contracts.errors import ErasedError
from veilstream.contracts.records import Key, Limits, PublicKey
from veilstream.keys.service import LocalFile


@dataclass
class Model:
    """What should stand there, and what each command should say."""

    status: str | None = None
    tier: str = "starter"
    limit: int | None = None
    version: int = 0
    history: list[tuple[str, int | None, int]] = field(default_factory=list)
    """Tier, limit and offset of every command that set them, the first one first."""

    def judge(self, offset: int, kind: str, tier: str, limit: int | None, replaces: int) -> str:
        """changed, unchanged, or a code."""
        if self.status in (None, "deleted"):
            return self._without_tenant(offset, kind, tier)
        if kind == "tenant.create":
            return "unchanged" if (self.tier, self.limit) == (tier, None) else "tenant_exists"
        if (kind, self.status) == ("tenant.delete", "active"):
            return "tenant_not_suspended"
        if kind == "keys.rotate" and replaces not in (0, self.version):
            return "unchanged" if replaces == self.version - 1 else "key_changed"
        return "changed" if self._changes(offset, kind, tier, limit) else "unchanged"

    def _without_tenant(self, offset: int, kind: str, tier: str) -> str:
        if self.status == "deleted":
            return "unchanged" if kind == "tenant.delete" else "tenant_deleted"
        if kind != "tenant.create":
            return "unknown_tenant"
        self.status, self.version, self.tier = "active", 1, tier
        self.history.append((tier, None, offset))
        return "changed"

    def _changes(self, offset: int, kind: str, tier: str, limit: int | None) -> bool:
        before = (self.status, self.version, self.tier, self.limit)
        if kind == "tenant.update":
            self.tier, self.limit = tier, limit
            if before[2:] != (tier, limit):
                self.history.append((tier, limit, offset))
        elif kind == "keys.rotate":
            self.version += 1
        else:
            self.status = {"tenant.suspend": "suspended", "tenant.resume": "active", "tenant.delete": "deleted"}[kind]
        return before != (self.status, self.version, self.tier, self.limit)


KINDS = [
    "tenant.create", "tenant.update", "tenant.update", "tenant.update", "tenant.suspend", "tenant.suspend", "tenant.resume",
    "tenant.delete", "keys.rotate", "keys.rotate",
]  # fmt: skip
COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.sampled_from(["starter", "standard"]), st.sampled_from([None, 5, 6]), st.integers(0, 3)
    ),
    max_size=40,
)  # fmt: skip


def body_of(kind: str, tier: str, limit: int | None, replaces: int) -> dict[str, Any]:
    bodies: dict[str, dict[str, Any]] = {
        "tenant.create": {"tier": tier},
        "tenant.update": {"tier": tier, "limits": {"requests_per_day": limit}},
        "tenant.delete": {"confirm": "acme"},
        "keys.rotate": {"replaces": f"acme/{replaces}"} if replaces else {},
    }
    return bodies.get(kind, {})


@settings(max_examples=150, deadline=None)
@given(commands=COMMANDS, cuts=st.sets(st.integers(0, 40)), follows=st.booleans(), created=st.booleans())
def test_any_sequence_leaves_what_the_model_says(
    service: LocalFile, commands: list[tuple[str, str, int | None, int]], cuts: set[int], follows: bool, created: bool
) -> None:
    """However it is cut into batches, and whether or not this worker's key ring hears of its own keys in between."""
    desk, model = Desk(service), Model()
    if created:
        commands = [("tenant.create", "starter", None, 0), *commands]
    items = [desk.item(command[0], "acme", body_of(*command)) for command in commands]
    wanted = [model.judge(offset, *command) for offset, command in enumerate(commands)]
    bounds = [0, *sorted(cut for cut in cuts if cut < len(items)), len(items)]
    results = [r for start, end in pairwise(bounds) for r in desk.judge(*items[start:end], follow=follows)]
    assert [r.code or ("changed" if orjson.loads(r.body)["changed"] else "unchanged") for r in results] == wanted
    if model.status is None:
        return
    row, ring = desk.tenant("acme"), desk.ring_of_its_own()
    assert (row.status, row.tier, row.limits) == (
        model.status, model.tier, None if model.limit is None else Limits(requests_per_day=model.limit)
    )  # fmt: skip
    *former, (_, _, limits_from) = model.history
    assert row.limits_from == limits_from
    assert [
        (old.tier, old.limits and old.limits.requests_per_day, old.from_offset) for old in row.former_limits
    ] == former[:-17:-1]
    told = {out.key: out.value for out in desk.outputs if out.topic == catalogue.PUBLIC_KEYS}
    if model.status == "deleted":
        assert (row.key_id, row.public_key, told) == ("", b"", {b"acme": None})
        for key_id in {key.key_id for key in desk.of(Key, catalogue.KEYS) if key.tenant == "acme"}:
            with pytest.raises(ErasedError):
                ring.by_id(key_id, "acme")
    else:
        keys = ring.of_tenant("acme")
        assert (keys.key_id, keys.hpke_public) == (f"acme/{model.version}", row.public_key)
        assert desk.of(PublicKey, catalogue.PUBLIC_KEYS)[-1].key_id == keys.key_id
        for version in range(1, model.version):
            assert ring.by_id(f"acme/{version}", "acme").version == version
