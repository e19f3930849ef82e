"""A change of master, by real nodes and the operator's commands: planned, unplanned, behind a Service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from network import Service, listening
from nodes import Node, follow, hand_over, running, take_over
from vectorizer_sdk import PositionLostError, UnavailableError, UnreachableError, VectorizerClient

pytestmark = pytest.mark.anyio


@pytest.fixture
def three(folder: Path) -> Iterator[list[Node]]:
    first = Node.master(folder)
    nodes = [first, Node.replica_of(first, folder), Node.replica_of(first, folder)]
    with running(*nodes):
        yield nodes


@contextlib.asynccontextmanager
async def writing(client: VectorizerClient, tasks: int = 4) -> AsyncIterator[list[str]]:
    """Writes as fast as it goes until the end of the block; the ids, each once answered. A failure ends it."""
    written: list[str] = []
    stop = asyncio.Event()

    async def write(task: int) -> None:
        number = 0
        while not stop.is_set():
            id = f"{task}-{number}"
            await client.insert_vectors("c", [{"id": id, "embedding": [task, number]}], atomic=True)
            written.append(id)
            number += 1

    async with asyncio.TaskGroup() as group:
        for task in range(tasks):
            group.create_task(write(task))
        yield written
        stop.set()


async def more(written: list[str], count: int = 50) -> None:
    goal = len(written) + count
    async with asyncio.timeout(60):
        while len(written) < goal:
            await asyncio.sleep(0.01)


async def ids(client: VectorizerClient) -> set[str]:
    found: set[str] = set()
    while page := (await client.list_vectors("c", limit=1000, offset=len(found)))["vectors"]:
        found |= {one["id"] for one in page}
    return found


@pytest.mark.parametrize("known", [1, 3])
async def test_no_write_fails_while_mastership_goes_round_three_nodes(three: list[Node], known: int) -> None:
    async with VectorizerClient([node.url for node in three[:known]]) as client:
        await client.create_collection("c", 2, metric="euclidean")
        async with writing(client) as written:
            for old, new in ((0, 1), (1, 2), (2, 0)):
                await more(written)
                other = three[3 - old - new]
                await asyncio.to_thread(hand_over, three[old], three[new], other)
            await more(written)
        assert await ids(client) == set(written)


async def test_a_replica_names_the_master_and_the_write_goes_there(three: list[Node]) -> None:
    follow(three[0], *three[1:])
    async with VectorizerClient(three[1].url) as client:
        await client.create_collection("c", 2)
        assert (await client.list_replicas())["count"] == 2
        # What is asked about the node is still asked of the node.
        assert (await client.get_replication_status())["role"] == "replica"
    assert three[0].requests()["/collections"] == 1


async def test_a_list_of_replicas_is_asked_of_the_master_that_a_replica_names(three: list[Node]) -> None:
    follow(three[0], *three[1:])
    async with VectorizerClient(three[1].url) as client:
        assert (await client.list_replicas())["count"] == 2


async def test_writes_go_on_after_the_master_is_killed_and_another_takes_over(three: list[Node]) -> None:
    async with VectorizerClient([node.url for node in three]) as client:
        await client.create_collection("c", 2)
        await client.insert_vectors("c", [{"id": "before", "embedding": [1, 2]}], acks=2)
        three[0].kill()
        with pytest.raises((UnavailableError, UnreachableError)) as failed:
            await client.insert_text("c", "to nobody", timeout=5.0)
        assert len(failed.value.__notes__) == 3
        late = asyncio.create_task(client.insert_vectors("c", [{"id": "during", "embedding": [3, 4]}]))
        await asyncio.to_thread(take_over, three[2], three[1])
        await late
        assert await ids(client) == {"before", "during"}


async def test_behind_a_service_a_refusal_leads_to_a_new_connection(folder: Path) -> None:
    master = Node.master(folder)
    replica = Node.replica_of(master, folder)
    service = Service(replica.url)
    with running(master, replica):
        async with listening(service, service.relay), VectorizerClient(service.url) as client:
            # Names nobody: roles are static here. So it is final, once a new connection has brought the same.
            with pytest.raises(UnavailableError) as refused:
                await client.create_collection("c", 2)
            assert (refused.value.code, refused.value.status) == ("not_master", 421)
            assert service.connections == 2
            await client.list_collections()
            service.backend = master.url
            await client.create_collection("c", 2)
            assert master.get("/collections")["collections"][0]["name"] == "c"


async def test_a_write_lost_in_a_failover_is_said_once_and_reads_go_on(folder: Path) -> None:
    master = Node.master(folder)
    replica = Node.replica_of(master, folder)
    with running(master, replica):
        async with VectorizerClient([master.url, replica.url]) as client:
            await client.create_collection("c", 2, acks=1)
            replica.kill()
            await client.insert_vectors("c", [{"id": "alone", "embedding": [1, 2]}])
            lost = client.position
            master.kill()
            replica.start()
            await asyncio.to_thread(take_over, replica)
            other = VectorizerClient(replica.url)
            await other.insert_vectors("c", [{"id": "instead", "embedding": [1, 2]}])
            await other.insert_vectors("c", [{"id": "further", "embedding": [1, 2]}])
            await other.close()
            with pytest.raises(PositionLostError) as said:
                await ids(client)
            assert (said.value.code, said.value.status) == ("conflict", 409)
            assert lost is not None
            assert lost in said.value.message
            assert await ids(client) == {"instead", "further"}
