"""The REST API as methods, each with the name, the keys and the answer that the specification and the nodes give it."""

import json
import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, Unpack, cast
from urllib.parse import quote

from . import bulk
from . import types as t
from .calls import Call, Caller, order_of
from .nodes import Nodes, Route, addresses
from .transport import Request, Transport


class VectorizerClient:
    """A Vectorizer that may be several nodes.

    `url` is one address, or all that there are; with Services, the one that leads to the master. `reads` is where reads
    go when not there: the Service of the replicas. Calls about a node itself (`get_replication_status`,
    `configure_replication`, `health` …) go to the first address of `url` and nowhere else.

    `api_key` comes from the environment (`VECTORIZER_API_KEY`) when it is left out. `timeout` is for a whole call, in
    seconds, however many nodes are asked. `verify` is httpx's: an `ssl.SSLContext`, or False.

    Every method raises a `VectorizerError`; bad arguments raise `ValueError` before anything is sent. Use it with
    `async with`, or `close()` it at the end; one client serves any number of tasks of one event loop.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        reads: str | Sequence[str] = (),
        api_key: str | None = None,
        timeout: float = 60.0,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._addresses: Final = addresses(url, "url")
        nodes = Nodes(self._addresses, addresses(reads, "reads") if reads else [])
        self._caller: Final = Caller(nodes, Transport(api_key, verify), timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"VectorizerClient({', '.join(self._addresses)})"

    async def close(self) -> None:
        """Close all connections."""
        await self._caller.close()

    @property
    def position(self) -> str | None:
        """Where this client's last write stands in the log, `<epoch>.<offset>`: its reads see at least that.

        Set it to another client's, and the reads of this one see what that one wrote.
        """
        return self._caller.position

    @position.setter
    def position(self, position: str | None) -> None:
        if position is not None and order_of(position) < (0, 0):
            raise ValueError(f"{position!r} is no position: expected such as 3.1042")
        self._caller.position = position

    # The node itself.

    async def health(self, **options: Unpack[t.ReadOptions]) -> t.Health:
        """`GET /health`: that the node runs, and its version."""
        return cast(t.Health, await self._node("/health", **options))

    async def livez(self, **options: Unpack[t.ReadOptions]) -> dict[str, Any]:
        """`GET /livez`: whether the node's writer is at work; raises `UnavailableError` when not."""
        return cast(dict[str, Any], await self._node("/livez", **options))

    async def readyz(self, **options: Unpack[t.ReadOptions]) -> dict[str, Any]:
        """`GET /readyz`: whether the node has a role and data; raises `UnavailableError` when not."""
        return cast(dict[str, Any], await self._node("/readyz", **options))

    async def metrics(self, **options: Unpack[t.ReadOptions]) -> str:
        """`GET /metrics`, in the OpenMetrics format."""
        call = Call(Route.NODE, Request("GET", "/metrics"), text=True)
        return cast(str, await self._caller.call(call, **options))

    async def openapi(self, **options: Unpack[t.ReadOptions]) -> dict[str, Any]:
        """`GET /openapi.json`."""
        return cast(dict[str, Any], await self._node("/openapi.json", **options))

    async def get_replication_status(self, **options: Unpack[t.ReadOptions]) -> t.ReplicationStatus:
        """`GET /replication/status`: of the node at the first address."""
        return cast(t.ReplicationStatus, await self._node("/replication/status", **options))

    async def get_replication_stats(self, **options: Unpack[t.ReadOptions]) -> t.ReplicationStats:
        """`GET /replication/stats`: of the node at the first address."""
        return cast(t.ReplicationStats, await self._node("/replication/stats", **options))

    async def get_replication_digest(self, **options: Unpack[t.ReadOptions]) -> t.ReplicationDigest:
        """`GET /replication/digest`: what the node at the first address holds."""
        return cast(t.ReplicationDigest, await self._node("/replication/digest", **options))

    async def configure_replication(
        self, config: t.ReplicationConfig | Mapping[str, Any], **options: Unpack[t.ReadOptions]
    ) -> t.ReplicationConfigured:
        """`POST /replication/configure`: of the node at the first address, from its next start on."""
        call = Call(Route.NODE, _json("/replication/configure", dict(config)), changes=True)
        return cast(t.ReplicationConfigured, await self._caller.call(call, **options))

    async def list_replicas(self, **options: Unpack[t.ReadOptions]) -> t.Replicas:
        """`GET /replication/replicas`: of the master, as it sees them."""
        call = Call(Route.MASTER, Request("GET", "/replication/replicas"))
        return cast(t.Replicas, await self._caller.call(call, **options))

    async def forget_replica(self, id: str, **options: Unpack[t.ReadOptions]) -> t.Replicas:
        """`DELETE /replication/replicas/{id}`: one that is gone for good. Answers those that are left."""
        request = Request("DELETE", f"/replication/replicas/{_segment('id', id)}")
        return cast(t.Replicas, await self._caller.call(Call(Route.MASTER, request, changes=True), **options))

    # Collections.

    async def create_collection(
        self,
        name: str,
        dimension: int,
        *,
        metric: t.Metric = "cosine",
        description: str | None = None,
        **options: Unpack[t.WriteOptions],
    ) -> t.CollectionCreated:
        """`POST /collections`."""
        body = {"name": name, "dimension": dimension, "metric": metric, "description": description}
        return cast(t.CollectionCreated, await self._write(_json("/collections", body), **options))

    async def list_collections(self, **options: Unpack[t.ReadOptions]) -> t.Collections:
        """`GET /collections`."""
        return cast(t.Collections, await self._read(Request("GET", "/collections"), **options))

    async def get_collection(self, name: str, **options: Unpack[t.ReadOptions]) -> t.Collection:
        """`GET /collections/{name}`."""
        return cast(t.Collection, await self._read(Request("GET", _path(name)), **options))

    async def delete_collection(self, name: str, **options: Unpack[t.WriteOptions]) -> t.CollectionDeleted:
        """`DELETE /collections/{name}`: it and all that is in it."""
        return cast(t.CollectionDeleted, await self._write(Request("DELETE", _path(name)), **options))

    # Vectors.

    async def insert_text(
        self,
        collection: str,
        text: str,
        *,
        id: str | None = None,
        metadata: t.Payload | None = None,
        **options: Unpack[t.WriteOptions],
    ) -> t.TextInserted:
        """`POST /insert`: one text. A vector of that id is replaced; without one the node makes it."""
        body = {"collection": collection, "text": text, "id": id, "metadata": metadata}
        return cast(t.TextInserted, await self._write(_json("/insert", body), **options))

    async def insert_texts(
        self, collection: str, texts: Sequence[t.TextItem], *, atomic: bool = False, **options: Unpack[t.WriteOptions]
    ) -> t.BatchInserted:
        """`POST /insert_texts`: with `atomic` all or none, otherwise see `failed` in the answer."""
        body = {"collection": collection, "texts": list(texts), "atomic": atomic}
        return cast(t.BatchInserted, await self._write(_json("/insert_texts", body), **options))

    async def insert_vectors(
        self,
        collection: str,
        vectors: Sequence[t.VectorItem],
        *,
        atomic: bool = False,
        **options: Unpack[t.WriteOptions],
    ) -> t.BatchInserted:
        """`POST /insert_vectors`: with `atomic` all or none, otherwise see `failed` in the answer."""
        body = {"collection": collection, "vectors": list(vectors), "atomic": atomic}
        return cast(t.BatchInserted, await self._write(_json("/insert_vectors", body), **options))

    async def insert_bulk(
        self, collection: str, vectors: Sequence[t.VectorItem], **options: Unpack[t.WriteOptions]
    ) -> t.BulkInserted:
        """`POST /collections/{name}/bulk`: vectors with ids in one binary body, all or none. For millions of them."""
        request = Request(
            "POST", _path(collection, "/bulk"), headers={"Content-Type": bulk.CONTENT_TYPE}, content=bulk.body(vectors)
        )
        return cast(t.BulkInserted, await self._write(request, **options))

    async def list_vectors(
        self,
        collection: str,
        *,
        limit: int = 10,
        offset: int | None = None,
        after: str | None = None,
        **options: Unpack[t.ReadOptions],
    ) -> t.VectorPage:
        """`GET /collections/{name}/vectors`: a page of at most 1,000, ordered by id.

        To see all, ask with `after=""` and then with what each page says in `next`, in an order that no write changes.
        """
        asked = {"limit": limit, "offset": offset, "after": after}
        query = {key: value for key, value in asked.items() if value is not None}
        request = Request("GET", _path(collection, "/vectors"), query=query)
        return cast(t.VectorPage, await self._read(request, **options))

    async def get_vector(self, collection: str, id: str, **options: Unpack[t.ReadOptions]) -> t.Vector:
        """`GET /collections/{name}/vectors/{id}`."""
        request = Request("GET", _path(collection, f"/vectors/{_segment('id', id)}"))
        return cast(t.Vector, await self._read(request, **options))

    async def delete_vector(self, collection: str, id: str, **options: Unpack[t.WriteOptions]) -> t.VectorChanged:
        """`DELETE /collections/{name}/vectors/{id}`."""
        request = Request("DELETE", _path(collection, f"/vectors/{_segment('id', id)}"))
        return cast(t.VectorChanged, await self._write(request, **options))

    async def update_vector(
        self,
        collection: str,
        id: str,
        *,
        vector: Sequence[float] | None = None,
        payload: t.Payload | None = None,
        **options: Unpack[t.WriteOptions],
    ) -> t.VectorChanged:
        """`POST /update`: new numbers, keys of the payload to set, or both."""
        body = {"collection": collection, "id": id, "vector": _numbers(vector), "payload": payload}
        return cast(t.VectorChanged, await self._write(_json("/update", body), **options))

    async def batch_update(
        self,
        collection: str,
        updates: Sequence[t.UpdateItem],
        *,
        atomic: bool = False,
        **options: Unpack[t.WriteOptions],
    ) -> t.BatchUpdated:
        """`POST /batch_update`."""
        body = {"collection": collection, "updates": list(updates), "atomic": atomic}
        return cast(t.BatchUpdated, await self._write(_json("/batch_update", body), **options))

    async def batch_delete(
        self, collection: str, ids: Sequence[str], *, atomic: bool = False, **options: Unpack[t.WriteOptions]
    ) -> t.BatchDeleted:
        """`POST /batch_delete`."""
        body = {"collection": collection, "ids": list(ids), "atomic": atomic}
        return cast(t.BatchDeleted, await self._write(_json("/batch_delete", body), **options))

    # Searches.

    async def search(
        self,
        collection: str,
        query: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        limit: int | None = None,
        filter: Mapping[str, Any] | None = None,
        score_threshold: float | None = None,
        with_vector: bool | None = None,
        **options: Unpack[t.ReadOptions],
    ) -> t.SearchResults:
        """`POST /collections/{name}/search`: by a text or by a vector; 10 results unless `limit` says otherwise."""
        body = {
            "query": query,
            "vector": _numbers(vector),
            "limit": limit,
            "filter": filter,
            "score_threshold": score_threshold,
            "with_vector": with_vector,
        }
        return cast(t.SearchResults, await self._read(_json(_path(collection, "/search"), body), **options))

    async def hybrid_search(
        self,
        collection: str,
        query: str,
        *,
        query_sparse: t.SparseVector | None = None,
        alpha: float | None = None,
        algorithm: t.Fusion | None = None,
        dense_k: int | None = None,
        sparse_k: int | None = None,
        final_k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        **options: Unpack[t.ReadOptions],
    ) -> t.HybridResults:
        """`POST /collections/{name}/hybrid_search`: nearness of vectors and common words together."""
        body = {
            "query": query,
            "query_sparse": query_sparse,
            "alpha": alpha,
            "algorithm": algorithm,
            "dense_k": dense_k,
            "sparse_k": sparse_k,
            "final_k": final_k,
            "filter": filter,
        }
        return cast(t.HybridResults, await self._read(_json(_path(collection, "/hybrid_search"), body), **options))

    async def batch_search(
        self, collection: str, queries: Sequence[t.BatchQuery], **options: Unpack[t.ReadOptions]
    ) -> t.BatchResults:
        """`POST /batch_search`: at most 100 searches at once."""
        body = {"collection": collection, "queries": list(queries)}
        return cast(t.BatchResults, await self._read(_json("/batch_search", body), **options))

    async def embed(
        self, text: str, *, model: str | None = None, dimension: int | None = None, **options: Unpack[t.ReadOptions]
    ) -> t.Embedding:
        """`POST /embed`: a text as a vector."""
        body = {"text": text, "model": model, "dimension": dimension}
        return cast(t.Embedding, await self._read(_json("/embed", body), **options))

    async def _node(self, path: str, **options: Unpack[t.ReadOptions]) -> Any:
        return await self._caller.call(Call(Route.NODE, Request("GET", path)), **options)

    async def _read(self, request: Request, **options: Unpack[t.ReadOptions]) -> Any:
        return await self._caller.call(Call(Route.READ, request), **options)

    async def _write(self, request: Request, **options: Unpack[t.WriteOptions]) -> Any:
        return await self._caller.call(Call(Route.MASTER, request, changes=True), **options)


def _json(path: str, body: Mapping[str, Any]) -> Request:
    """Make a POST request. What is `None` is left out; numbers that JSON cannot say raise `ValueError`."""
    given = {key: value for key, value in body.items() if value is not None}
    content = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Request("POST", path, headers={"Content-Type": "application/json"}, content=content.encode())


def _numbers(vector: Sequence[float] | None) -> list[float] | None:
    return None if vector is None else [float(number) for number in vector]


def _path(collection: str, rest: str = "") -> str:
    return f"/collections/{_segment('collection', collection)}{rest}"


def _segment(name: str, text: str) -> str:
    """One segment of a path, which what it holds cannot leave."""
    if text in ("", ".", ".."):
        raise ValueError(
            f"{name}: {text!r} cannot be said in a path; vectors of such ids can be deleted by batch_delete"
        )
    return quote(text, safe="")
