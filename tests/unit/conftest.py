"""What the tests of the policy agent share: a key service, a desk, and one at which a tenant was made."""

from __future__ import annotations

import pytest

from tests.unit.policy_desk import Desk, key_service
from veilstream.keys.service import LocalFile


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> LocalFile:
    return key_service(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def desk(service: LocalFile) -> Desk:
    return Desk(service)


@pytest.fixture
def acme(desk: Desk) -> Desk:
    """A desk at which the tenant acme was made by command 0."""
    assert desk.ask("tenant.create", "acme").status == "done"
    return desk
