"""What the tests share: a pair of nodes, and asyncio."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from nodes import Node, running


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VECTORIZER_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    """A master and its replica, with an empty collection `texts`."""
    folder = tmp_path_factory.mktemp("pair")
    master = Node.master(folder)
    replica = Node.replica_of(master, folder)
    with running(master, replica):
        wish = {"name": "texts", "dimension": 64}
        httpx.post(f"{master.url}/collections", json=wish, trust_env=False).raise_for_status()
        replica.reaches(master)
        yield master, replica


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's own nodes live."""
    return tmp_path / "nodes"
