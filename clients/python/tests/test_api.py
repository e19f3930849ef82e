"""Every endpoint of a node by its method, against a real pair; what is not there is named here, with the reason."""

from pathlib import Path

import pytest

from nodes import Node
from vectorizer_sdk import NotFoundError, VectorizerClient

pytestmark = pytest.mark.anyio

# Pages for people; another spelling of what exists; the operator's commands, which need an order and a Lease.
NOT_CALLED = {
    ("get", "/"),
    ("get", "/docs"),
    ("get", "/prometheus/metrics"),
    ("post", "/batch_insert"),
    ("post", "/collections/{name}/vectors"),
    ("post", "/collections/{name}/search/text"),
}


async def test_every_endpoint_is_a_method_and_answers_with_its_keys(folder: Path) -> None:
    master = Node.master(folder)
    replica = Node.replica_of(master, folder)
    try:
        master.start()
        replica.start()
        replica.reaches(master)
        async with VectorizerClient(master.url) as client:
            await call_everything(client, master, replica)
            document = await client.openapi()
        operations = {(method, path) for path, methods in document["paths"].items() for method in methods}
        assert operations >= NOT_CALLED
        left = {(method, path) for method, path in operations - NOT_CALLED if not path.startswith("/control/")}
        assert len(left) > 20
        answered = master.requests()
        for path in {path for _, path in left}:
            expected = sum(1 for _, other in left if other == path)
            assert answered.get(path, 0) >= expected, path
    finally:
        master.kill()
        replica.kill()


async def call_everything(client: VectorizerClient, master: Node, replica: Node) -> None:
    assert (await client.health())["status"] == "healthy"
    assert (await client.livez())["status"] == "alive"
    assert (await client.readyz())["role"] == "master"
    assert "vectorizer_build_info" in await client.metrics()

    status = await client.get_replication_status()
    assert (status["enabled"], status["role"], status["replication_log_size"]) == (True, "master", 1_000_000)
    stats = await client.get_replication_stats()
    assert (stats["role"], stats["bytes_received"] >= 0) == ("master", True)
    configured = await client.configure_replication({"role": "master", "heartbeat_interval": 5})
    assert (configured["success"], configured["role"]) == (True, "Master")

    created = await client.create_collection("c", 2, metric="euclidean", description="two numbers")
    assert (created["name"], created["dimension"], created["metric"]) == ("c", 2, "euclidean")
    await client.create_collection("texts", 64)
    assert [one["name"] for one in (await client.list_collections())["collections"]] == ["c", "texts"]

    text = await client.insert_text("texts", "a white rabbit", id="rabbit", metadata={"page": 1})
    assert (text["vector_ids"], text["vectors_created"], text["chunked"]) == (["rabbit"], 1, False)
    texts = await client.insert_texts("texts", [{"text": "a hatter"}, {"text": "a queen", "id": "queen"}])
    assert (texts["inserted"], texts["failed"], texts["count"]) == (2, 0, 2)
    vectors = await client.insert_vectors("c", [{"id": "1", "embedding": [1, 0], "payload": {"n": 1}}], atomic=True)
    assert vectors["results"][0] == {"id": "1", "status": "ok", "index": 0, "client_id": "1"}
    bulk = await client.insert_bulk(
        "c", [{"id": "ü/2", "embedding": [0.5, 2.0], "payload": {"n": 2}}, {"id": "3", "embedding": [3.0, 0.0]}]
    )
    assert bulk == {"inserted": 2}

    found = await client.search("texts", "rabbit", limit=1, with_vector=True, filter={"page": 1})
    assert (found["results"][0]["id"], found["limit"], len(found["results"][0]["vector"])) == ("rabbit", 1, 64)
    near = await client.search("c", vector=[3, 0], limit=1, score_threshold=0.0)
    assert near["results"][0]["id"] == "3"
    mixed = await client.hybrid_search("texts", "queen", alpha=0.5, algorithm="rrf", final_k=1)
    assert (mixed["results"][0]["id"], mixed["algorithm"]) == ("queen", "rrf")
    several = await client.batch_search("c", [{"vector": [1.0, 0.0], "limit": 1}, {"vector": [0.5, 2.0]}])
    assert [one["results"][0]["id"] for one in several["results"]] == ["1", "ü/2"]
    embedded = await client.embed("a white rabbit", dimension=8)
    assert len(embedded["embedding"]) == embedded["dimension"] == 8

    page = await client.list_vectors("c", limit=2, offset=1)
    assert [one["id"] for one in page["vectors"]] == ["3", "ü/2"]
    assert page["total"] == 3
    assert await everything(client, "c", 2) == {"1", "3", "ü/2"}
    vector = await client.get_vector("c", "ü/2")
    assert (vector["vector"], vector["payload"]) == ([0.5, 2.0], {"n": 2})
    changed = await client.update_vector("c", "1", vector=[9, 9], payload={"m": 2})
    assert changed["id"] == "1"
    updated = await client.batch_update("c", [{"id": "1", "payload": {"k": 3}}, {"id": "nobody", "payload": {}}])
    assert (updated["updated"], updated["failed"]) == (1, 1)
    vector = await client.get_vector("c", "1")
    assert (vector["vector"], vector["payload"]) == ([9.0, 9.0], {"n": 1, "m": 2, "k": 3})
    assert (await client.delete_vector("c", "1"))["id"] == "1"
    with pytest.raises(NotFoundError) as missing:
        await client.get_vector("c", "1")
    assert (missing.value.code, missing.value.status) == ("vector_not_found", 404)
    assert (await client.batch_delete("c", ["3", "ü/2"], atomic=True))["deleted"] == 2
    collection = await client.get_collection("c")
    assert (collection["vector_count"], collection["metric"]) == (0, "euclidean")
    assert (await client.delete_collection("c"))["collection"] == "c"

    assert {one["name"] for one in (await client.get_replication_digest())["collections"]} == {"texts"}
    replicas = await client.list_replicas()
    assert replicas["count"] == 1
    own = replica.state["nodeId"]
    assert replicas["replicas"][0]["id"] == own
    replica.kill()
    master.misses_its_replicas()
    assert (await client.forget_replica(own))["count"] == 0


async def everything(client: VectorizerClient, collection: str, limit: int) -> set[str]:
    ids: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await client.list_vectors(collection, limit=limit, after=after)
        ids += [vector["id"] for vector in page["vectors"]]
        after = page.get("next")
    assert len(ids) == len(set(ids))
    return set(ids)
