"""What goes to a node and comes back: dictionaries with the keys of the REST API.

`docs/spec.md` and a node's `/openapi.json` describe each field. Answers may gain keys.
"""

from typing import Any, Literal, NotRequired, TypedDict

Role = Literal["master", "replica", "unassigned"]
Metric = Literal["cosine", "euclidean", "dotproduct"]
Fusion = Literal["rrf", "weighted", "alpha"]
ReplicaState = Literal["Connected", "Syncing", "Lagging", "Disconnected"]
Payload = dict[str, Any]


# Options that calls have in common.


class ReadOptions(TypedDict, total=False):
    """Options of every call."""

    timeout: float
    """Seconds for the whole call, however many nodes are asked; the client's when left out."""


class WriteOptions(ReadOptions, total=False):
    """Options of every write."""

    acks: int
    """Replicas that must hold it before it is answered, when more than the cluster asks for."""


# Replication.


class ReplicationStatus(TypedDict):
    """`GET /replication/status`."""

    enabled: bool
    role: Role
    bind_address: NotRequired[str]
    master_address: NotRequired[str]
    connected_replicas: int
    replication_log_size: int
    current_offset: int
    epoch: int
    node_id: str
    connected: NotRequired[bool]
    warnings: NotRequired[list[str]]


class ReplicationConfig(TypedDict):
    """`POST /replication/configure`. Intervals are in seconds, `log_size` in operations."""

    role: Literal["master", "replica"]
    bind_address: NotRequired[str]
    master_address: NotRequired[str]
    heartbeat_interval: NotRequired[int]
    log_size: NotRequired[int]
    reconnect_interval: NotRequired[int]


class ReplicationConfigured(TypedDict):
    """Answer to it."""

    success: bool
    role: str
    message: str
    warnings: NotRequired[list[str]]


class ReplicationStats(TypedDict):
    """`GET /replication/stats`. `last_sync` is Unix time in seconds."""

    role: Role
    bytes_sent: int
    bytes_received: int
    last_sync: int
    operations_pending: int
    snapshot_size: int
    connected_replicas: int
    current_offset: int
    replication_log_size: int
    full_syncs: int
    partial_syncs: int


class Replica(TypedDict):
    """One replica as its master sees it."""

    id: str
    replica_id: str
    node: str
    host: str
    port: int
    status: ReplicaState
    lag_ms: int
    last_heartbeat: int
    operations_synced: int
    address: str
    offset: int
    lag_operations: int
    durable_offset: int
    connected: bool


class Replicas(TypedDict):
    """`GET /replication/replicas`."""

    replicas: list[Replica]
    count: int


class CollectionDigest(TypedDict):
    """What one collection comes to."""

    name: str
    count: int
    digest: str


class ReplicationDigest(TypedDict):
    """`GET /replication/digest`: two nodes at one position with one digest hold the same."""

    position: dict[str, int]
    chain: str
    history: list[dict[str, Any]]
    digest: str
    collections: list[CollectionDigest]


class Health(TypedDict):
    """`GET /health`. `uptime` is in seconds."""

    status: str
    version: str
    timestamp: str
    uptime: int
    collections: int
    total_vectors: int


# Collections.


class Collection(TypedDict):
    """One collection."""

    name: str
    dimension: int
    metric: Metric
    vector_count: int
    document_count: int
    status: str
    created_at: str
    updated_at: str
    embedding_provider: str
    indexing_status: dict[str, Any]
    normalization: dict[str, Any]
    quantization: dict[str, Any]
    size: dict[str, Any]


class CollectionCreated(Collection):
    """Answer of `POST /collections`."""

    message: str
    collection: str


class Collections(TypedDict):
    """`GET /collections`."""

    collections: list[Collection]


class CollectionDeleted(TypedDict):
    """Answer of `DELETE /collections/{name}`."""

    message: str
    collection: str


# Vectors.


class TextItem(TypedDict):
    """One text of `POST /insert_texts`. Without an id the node makes one."""

    text: str
    id: NotRequired[str]
    metadata: NotRequired[Payload]


class VectorItem(TypedDict):
    """One vector of `POST /insert_vectors`. Without an id the node makes one."""

    embedding: list[float]
    id: NotRequired[str]
    payload: NotRequired[Payload]


class UpdateItem(TypedDict):
    """One change of `POST /batch_update`: new numbers, keys of the payload to set, or both."""

    id: str
    vector: NotRequired[list[float]]
    payload: NotRequired[Payload]


class TextInserted(TypedDict):
    """Answer of `POST /insert`."""

    message: str
    vectors_created: int
    vector_ids: list[str]
    collection: str
    chunked: bool


class ItemOutcome(TypedDict):
    """What became of one item of a batch; `index` is its place in the request."""

    id: str
    status: Literal["ok", "error"]
    index: int
    error: NotRequired[str]
    client_id: NotRequired[str]


class BatchInserted(TypedDict):
    """Answer of the batch inserts."""

    collection: str
    inserted: int
    failed: int
    count: int
    results: list[ItemOutcome]


class BatchUpdated(TypedDict):
    """Answer of `POST /batch_update`."""

    collection: str
    count: int
    updated: int
    failed: int
    results: list[ItemOutcome]


class BatchDeleted(TypedDict):
    """Answer of `POST /batch_delete`."""

    collection: str
    count: int
    deleted: int
    failed: int
    results: list[ItemOutcome]


class BulkInserted(TypedDict):
    """Answer of `POST /collections/{name}/bulk`."""

    inserted: int


class Vector(TypedDict):
    """One vector; `data` is there unless it is one of a list."""

    id: str
    vector: list[float]
    data: NotRequired[list[float]]
    payload: Payload
    metadata: Payload


class VectorPage(TypedDict):
    """`GET /collections/{name}/vectors`; `next` is there when it was asked for with `after` and is not the last."""

    vectors: list[Vector]
    total: int
    limit: int
    offset: int
    next: NotRequired[str]


class VectorChanged(TypedDict):
    """Answer of `POST /update` and `DELETE /collections/{name}/vectors/{id}`."""

    message: str
    id: str
    collection: str


# Searches.


class SearchHit(TypedDict):
    """One result; a higher score is nearer, under every metric."""

    id: str
    score: float
    content: NotRequired[str]
    metadata: Payload
    payload: Payload
    vector: NotRequired[list[float]]


class SearchResults(TypedDict):
    """Answer of a search, best first."""

    results: list[SearchHit]
    query: NotRequired[str]
    collection: str
    limit: int
    query_time_ms: float


class SparseVector(TypedDict):
    """Weights of terms; both lists have one length."""

    indices: list[int]
    values: list[float]


class HybridResults(TypedDict):
    """Answer of a hybrid search, best first."""

    results: list[SearchHit]
    query: str
    alpha: float
    algorithm: Fusion
    duration_ms: int


class BatchQuery(TypedDict, total=False):
    """One search of `POST /batch_search`: by `query` or by `vector`."""

    query: str
    vector: list[float]
    limit: int
    threshold: float
    filter: dict[str, Any]


class BatchResults(TypedDict):
    """Answer to it, one entry for each search."""

    collection: str
    count: int
    results: list[SearchResults]


class Embedding(TypedDict):
    """Answer of `POST /embed`."""

    embedding: list[float]
    model: str
    text: str
    dimension: int
    provider: str
