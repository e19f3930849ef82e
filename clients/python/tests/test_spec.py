"""The Python of the specification, word for word, in the order of its page, inside one async function.

The page stands beside the checkout (`../shared/spec/replication-api.md`; `VECTORIZER_SPEC` names another place). Where
it is not there, this test is skipped and says so.
"""

import os
import re
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nodes import ROOT, Node, running

pytestmark = pytest.mark.anyio

PAGE = Path(os.environ.get("VECTORIZER_SPEC", ROOT.parent / "shared/spec/replication-api.md"))


@pytest.fixture
def hosts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Node, Node]]:
    """The page's host names lead to real nodes, which have what the page takes for granted: a collection."""
    master = Node.master(folder)
    replica = Node.replica_of(master, folder)
    names = {"localhost": master.ip, "master": master.ip, "replica1": replica.ip}
    resolve = socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **more: Any) -> Any:
        host = host.decode() if isinstance(host, bytes) else host
        return resolve(names.get(host, host), *rest, **more)

    with running(master, replica):
        wish = {"name": "collection", "dimension": 64}
        httpx.post(f"{master.url}/collections", json=wish, trust_env=False).raise_for_status()
        replica.reaches(master)
        monkeypatch.setattr(socket, "getaddrinfo", resolved)
        yield master, replica


async def test_the_pages_python_runs_word_for_word(
    hosts: tuple[Node, Node], capsys: pytest.CaptureFixture[str]
) -> None:
    if not PAGE.exists():
        pytest.skip(f"the specification's page is not here: {PAGE}")
    master, replica = hosts
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    source = "async def page():\n" + textwrap.indent("\n".join(blocks), "    ") + "    return locals()\n"
    names: dict[str, Any] = {}
    exec(compile(source, str(PAGE), "exec"), names)
    seen = await names["page"]()

    said = capsys.readouterr().out.splitlines()
    node = replica.state["nodeId"]
    assert said[:3] == ["Role: master", "Connected replicas: 1", f"Replica {node}: Connected"]
    assert re.fullmatch(r"  Lag: \d+ms", said[3])
    assert said[4] == f"  Operations synced: {master.state['position']['offset'] - 1}"
    assert said[5:7] == ["Role: master", "Connected replicas: 1"]
    assert re.fullmatch(r"Bytes sent: [1-9]\d*", said[7])
    assert said[8:] == [f"Current offset: {master.state['position']['offset']}"]
    # It was written on the master and searched for on the replica.
    replica.reaches(master)
    assert seen["results"]["collection"] == "collection"
    assert replica.requests()["/collections/{name}/search"] == 1
    assert "/collections/{name}/search" not in master.requests()
    assert master.requests()["/replication/configure"] == 2
    for used in ("client", "master_client", "replica_client"):
        await seen[used].close()
