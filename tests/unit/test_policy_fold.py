"""State is a fold of commands: any order of them leaves a view that a plain dictionary and list predict."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy_desk import (
    CODEC,
    FIRST_MS,
    Desk,
    digest,
)
from veilstream.contracts.records import (
    Command,
)
from veilstream.contracts.step import Item
from veilstream.keys.service import LocalFile
from veilstream.policy.view import PolicyView

COMMANDS = st.lists(
    st.one_of(
        st.tuples(
            st.just("set"), st.sampled_from("ab"), st.sampled_from(["1.0.0", "1.1.0"]), st.sampled_from(["x", "y"])
        ),
        st.tuples(st.just("activate"), st.sampled_from("ab"), st.sampled_from(["1.0.0", "1.1.0"]), st.just("")),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(commands=COMMANDS, cuts=st.sets(st.integers(0, 25)))
def test_any_order_of_commands_leaves_what_a_plain_fold_leaves(
    service: LocalFile, commands: list[tuple[str, str, str, str]], cuts: set[int]
) -> None:
    """However the commands are cut into batches, the view says at each moment what a dictionary and a list say."""
    desk = Desk(service)
    desk.judge(desk.item("tenant.create", "acme"))
    versions: dict[tuple[str, str], str] = {}
    active: list[tuple[int, str, str]] = [(FIRST_MS, "default", "1.0.0")]
    expected: list[bool] = []
    items: list[Item[Command]] = []
    for kind, policy, number, name in commands:
        if kind == "set":
            items.append(desk.item("policy.set", None, {"document": {"id": policy, "version": number, "name": name}}))
            expected.append(versions.setdefault((policy, number), name) == name)
        else:
            items.append(desk.item("policy.activate", "acme", {"policy": policy, "version": number}))
            expected.append((policy, number) in versions)
            if expected[-1] and active[-1][1:] != (policy, number):
                active.append((items[-1].record.timestamp_ms, policy, number))
    bounds = [0, *sorted(cut for cut in cuts if cut < len(items)), len(items)]
    results = [r for start, end in pairwise(bounds) for r in desk.judge(*items[start:end])]
    assert [r.status == "done" for r in results] == expected
    view = PolicyView(CODEC)
    for offset, (key, value) in enumerate(
        reversed(desk.table.items())
    ):  # compaction keeps last values, in any order of keys
        view.apply(key, value, offset)
    known = active[-17:]
    for at_ms in range(FIRST_MS - 1, FIRST_MS + len(items) + 2):
        pin = view.pin("acme", at_ms, None)
        in_force = [row for row in known if row[0] <= at_ms] or known[:1]
        assert (pin.policy, pin.version) == in_force[-1][1:]
    for (policy, number), name in versions.items():
        wanted = digest({"id": policy, "version": number, "name": name})
        assert view.document(policy, number, wanted).name == name
