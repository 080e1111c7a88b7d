"""Administration behind the door of a server without a model, and keys of every role."""

import shutil

import httpx
import pytest
from starlette.testclient import TestClient

from curbcut.ledger import access, open_ledger
from curbcut.serve.api.admin.acts import routes
from curbcut.serve.api.app import build
from curbcut.serve.api.uses import Uses
from curbcut.serve.gateway.limits import Limits


class NoModels:
    """A server that has none."""

    def names(self):
        return []

    def stats(self):
        return {}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A ledger with a key of each role, to be copied, and the secrets by role."""
    folder = tmp_path_factory.mktemp("ledger")
    with open_ledger(folder / "ledger.sqlite") as opened:
        return folder, {role: access.issue_key(opened, f"the-{role}", actor="test", role=role)
                        for role in access.ROLES}


@pytest.fixture
def ledger(made, tmp_path):
    folder, _ = made
    for file in folder.iterdir():
        shutil.copy(file, tmp_path)
    with open_ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def secrets(made):
    """A secret of each role, by the role."""
    return made[1]


@pytest.fixture
def door(ledger):
    """The whole application."""
    limits = Limits()
    uses = Uses(None)
    yield build(NoModels(), verify=lambda secret: access.verify(ledger, secret), limits=limits,
                uses=uses, more=routes(ledger, limits))
    uses.close()


@pytest.fixture
def of(door, secrets):
    """A client of a role; "" has no key."""
    def made(role: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {secrets[role]}"} if role else {}
        return TestClient(door, headers=headers, raise_server_exceptions=False)
    return made


@pytest.fixture
def admin(of):
    return of("admin")
