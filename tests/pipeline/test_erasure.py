"""Wrapped keys of a deleted tenant and of an erased session go from the broker's files, though nothing else is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.pipeline.chain import Chain, committed, until, veil
from tests.pipeline.planted import files
from tests.pipeline.test_planted import compact_soon
from veilstream.contracts import catalogue
from veilstream.contracts.records import Key
from veilstream.policy.erasure import NO_KEY
from veilstream.stack.state import settings_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

AFTER_S = 8
"""Time enough to kill the policy agent before."""
COMPACTED_S = 120
"""The broker's cleaner looks every 15 s, on a machine that may be busy."""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A stack on which nothing happens but what the test does."""
    folder = tmp_path_factory.mktemp("quiet")
    env = {"VEIL_ERASED_AFTER_S": str(AFTER_S)}
    try:
        veil("up", "--detach", "--data", str(folder), "--pool-workers", "1", data=folder, env=env)
        yield Chain(folder, settings_of(folder))
    finally:
        veil("down", "--data", str(folder), data=folder, check=False)


def holding(chain: Chain, needles: set[bytes]) -> set[str]:
    """Files of the stack that hold one of these."""
    return {name for name, raw in files(chain) if any(needle in raw for needle in needles)}


async def test_wrapped_keys_go_by_themselves(quiet: Chain) -> None:
    """Every version's, from every file, also where the policy agent is killed before the time; and the log does not grow on."""
    compact_soon(quiet)
    veil("tenant", "create", "gone", data=quiet.folder)
    veil("keys", "rotate", "gone", data=quiet.folder)
    async with quiet.client() as client:
        entries = [client.codec.decode(Key, record.value) for record in await committed(client, catalogue.KEYS)]
        wrapped = {entry.wrapped for entry in entries if entry.tenant == "gone" and entry.wrapped}
        assert len(wrapped) == 2
        assert holding(quiet, wrapped)

        veil("tenant", "delete", "gone", "--yes", data=quiet.folder)
        began = time.monotonic()
        quiet.kill("policy")

        async def nowhere() -> bool:
            return not holding(quiet, wrapped)

        await until(nowhere, timeout_s=AFTER_S + COMPACTED_S, what="the wrapped keys gone from every file")
        print(f"gone {time.monotonic() - began:.1f} s after the delete")
        closing = [record for record in await committed(client, catalogue.KEYS) if record.value is None]
        assert {record.key for record in closing} == {NO_KEY}
        await asyncio.to_thread(veil, "tenant", "create", "next", data=quiet.folder)  # who reads veil.keys reads on
        again = [record for record in await committed(client, catalogue.KEYS) if record.value is None]
        assert len(again) <= len(closing) == 1


async def test_a_session_s_wrapped_key_goes_by_itself(quiet: Chain) -> None:
    """Also where the policy agent is killed before the time; what stays says that the session was erased, and names nobody."""
    session = f"session_{'4' * 32}"
    compact_soon(quiet, catalogue.SESSION_KEYS)
    async with quiet.client() as client:
        await client.check("Soup", tenant="demo", session=session)
        rows = [record for record in await committed(client, catalogue.SESSION_KEYS) if record.value is not None]
        wrapped = {entry.wrapped for entry in (client.codec.decode(Key, row.value) for row in rows) if entry.wrapped}
        assert len(wrapped) == 1
        assert holding(quiet, wrapped)
        await asyncio.to_thread(veil, "session", "erase", "demo", session, "--yes", data=quiet.folder)
        began = time.monotonic()
        quiet.kill("policy")

        async def nowhere() -> bool:
            return not holding(quiet, wrapped)

        await until(nowhere, timeout_s=AFTER_S + COMPACTED_S, what="the wrapped key gone from every file")
        print(f"gone {time.monotonic() - began:.1f} s after the erasure")
        left = [record for record in await committed(client, catalogue.SESSION_KEYS) if record.value is not None]
        assert [client.codec.decode(Key, record.value).wrapped for record in left] == [None]
        assert not holding(quiet, {session.encode()}) - commands(quiet)
        verdict = await client.check("Soup", tenant="demo", session=session)
        assert verdict.decision == "allow"


def commands(chain: Chain) -> set[str]:
    """Files of the topics where an operator names a session, and is answered."""
    return {name for name, _ in files(chain) if "veil.command" in name}
