"""Who is asked: writes at the master, reads at replicas, and what was written is read."""

import asyncio
import time
from pathlib import Path

import pytest

from network import Proxy, http, listening
from nodes import Node, running
from vectorizer_sdk import UnavailableError, VectorizerClient

pytestmark = pytest.mark.anyio

SEARCH = "/collections/{name}/search"


async def test_reads_go_to_the_replica_and_writes_to_the_master(pair: tuple[Node, Node]) -> None:
    master, replica = pair
    before = [node.requests().get(SEARCH, 0) for node in pair]
    async with VectorizerClient([replica.url, master.url]) as client:
        await client.insert_text("texts", "a white rabbit")
        for _ in range(10):
            await client.search("texts", "rabbit")
    after = [node.requests().get(SEARCH, 0) for node in pair]
    assert [late - early for early, late in zip(before, after, strict=True)] == [0, 10]
    assert replica.requests().get("/insert", 0) <= 1


async def test_with_two_services_each_gets_its_own(pair: tuple[Node, Node]) -> None:
    master, replica = pair
    before = [node.requests().get(SEARCH, 0) for node in pair]
    async with VectorizerClient(master.url, reads=replica.url) as client:
        await client.search("texts", "rabbit")
        await client.insert_text("texts", "a hatter")
    after = [node.requests().get(SEARCH, 0) for node in pair]
    assert [late - early for early, late in zip(before, after, strict=True)] == [0, 1]


async def test_what_was_written_is_read_at_once_from_a_replica(pair: tuple[Node, Node]) -> None:
    master, replica = pair
    async with VectorizerClient(master.url, reads=replica.url) as client:
        for number in range(300):
            await client.insert_text("texts", f"number {number}", id="last", metadata={"number": number})
            assert (await client.get_vector("texts", "last"))["metadata"]["number"] == number
    status = master.get("/replication/status")
    assert client.position == f"{status['epoch']}.{status['current_offset']}"


async def test_a_position_is_carried_to_another_client(pair: tuple[Node, Node]) -> None:
    master, replica = pair
    async with VectorizerClient(master.url) as writer, VectorizerClient(replica.url) as reader:
        for number in range(100):
            await writer.insert_text("texts", f"number {number}", id="carried", metadata={"number": number})
            reader.position = writer.position
            assert (await reader.get_vector("texts", "carried"))["metadata"]["number"] == number
        reader.position = "1.999999"
        with pytest.raises(UnavailableError) as behind:
            await reader.list_collections(timeout=12.0)
        assert behind.value.details["wanted"] == "1.999999"
        with pytest.raises(ValueError, match="no position"):
            reader.position = "yesterday\r\n"


async def test_of_writes_that_overlap_the_last_one_is_read_whichever_is_answered_last() -> None:
    answer = http("200 OK", "{}", "application/json").replace(b"\r\n\r\n", b"\r\nx-vectorizer-position: 3.7\r\n\r\n")
    node = Proxy(answer)
    async with listening(node, node.answer), VectorizerClient(node.url) as client:
        await client.insert_text("texts", "the first")
        assert client.position == "3.7"
        for later in ("3.10", "10.1"):
            client.position = later
            await client.insert_text("texts", "answered late")
            assert client.position == later


async def test_reads_go_on_when_the_replica_is_gone_or_stands_still(folder: Path) -> None:
    master = Node.master(folder)
    gone, still = Node.replica_of(master, folder), Node.replica_of(master, folder)
    with running(master, gone, still):
        async with VectorizerClient(master.url, reads=[gone.url, still.url]) as client:
            await client.create_collection("c", 2)
            gone.kill()
            still.freeze()
            begun = time.monotonic()
            for _ in range(5):
                assert (await client.list_collections(timeout=20.0))["collections"][0]["name"] == "c"
            # Half of the time goes to who stands still, once: afterwards it is asked last.
            assert time.monotonic() - begun < 30


async def test_a_write_waits_for_as_many_replicas_as_the_call_asks_for(folder: Path) -> None:
    master = Node.master(folder)
    replica = Node.replica_of(master, folder)
    with running(master, replica):
        async with VectorizerClient(master.url) as client:
            await client.create_collection("c", 2, acks=1)
            replica.kill()
            master.misses_its_replicas()
            with pytest.raises(UnavailableError) as refused:
                await client.insert_text("c", "too few", acks=1, timeout=1.0)
            assert refused.value.code == "not_enough_replicas"
            # Nothing happened, so that it is tried again until there are enough.
            waiting = asyncio.create_task(client.insert_text("c", "enough", acks=1))
            await asyncio.to_thread(replica.start)
            await waiting
            assert (await client.get_collection("c"))["vector_count"] == 1


async def test_a_bad_request_is_not_tried_again(pair: tuple[Node, Node]) -> None:
    master, _ = pair
    before = master.requests()["/insert"]
    async with VectorizerClient(master.url) as client:
        with pytest.raises(Exception, match="text"):
            await client.insert_text("texts", " ")
    assert master.requests()["/insert"] == before + 1
