"""One rig for the session, and the table of doors at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.isolation.doors import Tally
from tests.isolation.rig import Rig, started_rig

TALLY = pytest.StashKey[Tally]()
LIMIT_S = 300
"""Of one door; the first one's time has the start of the whole chain in it."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


def pytest_unconfigure(config: pytest.Config) -> None:
    tally = config.stash.get(TALLY, None)
    if tally is not None and tally.rows:
        print(f"\n{tally.table()}")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """What became of every door."""
    return pytestconfig.stash[TALLY]


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The whole chain on a broker that lets nobody in without credentials, with the tenants aaa, bbb and ccc."""
    yield from started_rig(tmp_path_factory.mktemp("isolation"))
