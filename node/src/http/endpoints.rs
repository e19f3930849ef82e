//! The table of endpoints.

use vectorizer_api::control::{Fence, Follow, Handover, Initialize, Members, Promote, State};
use vectorizer_api::data::*;
use vectorizer_api::replication::{Configure, Configured, Digests, Replicas, Stats, Status};

use super::auth::Access;
use super::endpoint::{Endpoint, Kind};
use super::{control, data, openapi, replication, system};

/// Every endpoint.
pub(super) fn all() -> Vec<Endpoint> {
    let mut all = of_the_node();
    all.extend(of_data());
    all
}

fn of_the_node() -> Vec<Endpoint> {
    let watched = |endpoint: Endpoint| endpoint.needs(Kind::Node, Access::Watch);
    let commanded = |endpoint: Endpoint| {
        endpoint
            .needs(Kind::Control, Access::Control)
            .answers::<State>()
    };
    vec![
        Endpoint::get("/", "This API as a page", openapi::page),
        Endpoint::get("/docs", "This API as a page", openapi::page),
        Endpoint::get(
            "/openapi.json",
            "This API as an OpenAPI document",
            openapi::document,
        ),
        Endpoint::get(
            "/health",
            "That the node runs, and its version",
            system::health,
        )
        .answers::<Health>(),
        Endpoint::get(
            "/livez",
            "Whether the node's writer is at work",
            system::livez,
        ),
        Endpoint::get(
            "/readyz",
            "Whether the node has a role and data, and serves reads",
            system::readyz,
        ),
        Endpoint::get(
            "/metrics",
            "Metrics in the OpenMetrics format",
            system::metrics,
        ),
        Endpoint::get(
            "/prometheus/metrics",
            "Metrics in the OpenMetrics format",
            system::metrics,
        ),
        watched(Endpoint::get(
            "/replication/status",
            "Replication status and configuration",
            replication::status,
        ))
        .answers::<Status>(),
        Endpoint::post(
            "/replication/configure",
            "Configures replication from the next start on",
            replication::configure,
        )
        .needs(Kind::Node, Access::Admin)
        .takes::<Configure>()
        .answers::<Configured>(),
        watched(Endpoint::get(
            "/replication/stats",
            "Replication statistics",
            replication::stats,
        ))
        .answers::<Stats>(),
        watched(Endpoint::get(
            "/replication/replicas",
            "The replicas of this master",
            replication::replicas,
        ))
        .answers::<Replicas>(),
        Endpoint::get(
            "/replication/digest",
            "Proof of what this node holds at one position",
            replication::digest,
        )
        .reads()
        .answers::<Digests>(),
        Endpoint::delete(
            "/replication/replicas/{id}",
            "Forgets a replica that is gone for good",
            replication::forget,
        )
        .needs(Kind::Node, Access::Admin)
        .answers::<Replicas>(),
        commanded(Endpoint::get(
            "/control/state",
            "What this node is and where its log ends",
            control::state,
        )),
        commanded(Endpoint::post(
            "/control/initialize",
            "Makes an empty node the first master of a cluster",
            control::initialize,
        ))
        .takes::<Initialize>(),
        commanded(Endpoint::post(
            "/control/fence",
            "Accept nothing below an epoch any more",
            control::fence,
        ))
        .takes::<Fence>(),
        commanded(Endpoint::post(
            "/control/handover",
            "Stop writing once the target holds everything",
            control::handover,
        ))
        .takes::<Handover>(),
        commanded(Endpoint::post(
            "/control/promote",
            "Become the master of an epoch",
            control::promote,
        ))
        .takes::<Promote>(),
        commanded(Endpoint::post(
            "/control/follow",
            "Be a replica of a master",
            control::follow,
        ))
        .takes::<Follow>(),
        commanded(Endpoint::post(
            "/control/members",
            "Change who belongs to the cluster, and how many replicas must hold a write",
            control::members,
        ))
        .takes::<Members>(),
    ]
}

fn of_data() -> Vec<Endpoint> {
    const PAGE: &[(&str, &str)] = &[
        ("limit", "Vectors on the page, 1 to 1000; 10 by default"),
        ("offset", "Vectors to leave out before it; 0 by default"),
        (
            "after",
            "In place of offset: the `next` of the page before, or empty for the first page",
        ),
    ];
    vec![
        Endpoint::post(
            "/collections",
            "Creates a collection",
            data::create_collection,
        )
        .writes()
        .takes::<CreateCollection>()
        .answers::<CollectionCreated>(),
        Endpoint::get("/collections", "All collections", data::list_collections)
            .reads()
            .answers::<Collections>(),
        Endpoint::get(
            "/collections/{name}",
            "One collection",
            data::get_collection,
        )
        .reads()
        .answers::<Collection>(),
        Endpoint::delete(
            "/collections/{name}",
            "Drops a collection and all that is in it",
            data::delete_collection,
        )
        .writes()
        .answers::<CollectionDeleted>(),
        Endpoint::post("/insert", "Inserts one text", data::insert_text)
            .writes()
            .takes::<InsertText>()
            .answers::<TextInserted>(),
        Endpoint::post("/insert_texts", "Inserts texts", data::insert_texts)
            .writes()
            .takes::<InsertTexts>()
            .answers::<BatchInserted>(),
        Endpoint::post("/batch_insert", "Inserts texts", data::insert_texts)
            .writes()
            .takes::<InsertTexts>()
            .answers::<BatchInserted>(),
        Endpoint::post("/insert_vectors", "Inserts vectors", data::insert_vectors)
            .writes()
            .takes::<InsertVectors>()
            .answers::<BatchInserted>(),
        Endpoint::post(
            "/collections/{name}/vectors",
            "Inserts vectors into a collection",
            data::put_vectors,
        )
        .writes()
        .takes::<PutVectors>()
        .answers::<BatchInserted>(),
        Endpoint::post(
            "/collections/{name}/bulk",
            "Inserts vectors into a collection from a binary body, laid out as in docs/bulk.md",
            data::bulk,
        )
        .writes()
        .takes_bytes(BULK_CONTENT_TYPE)
        .answers::<BulkInserted>(),
        Endpoint::get(
            "/collections/{name}/vectors",
            "Vectors of a collection, ordered by id",
            data::list_vectors,
        )
        .reads()
        .query(PAGE)
        .answers::<VectorPage>(),
        Endpoint::get(
            "/collections/{name}/vectors/{id}",
            "One vector",
            data::get_vector,
        )
        .reads()
        .answers::<Vector>(),
        Endpoint::delete(
            "/collections/{name}/vectors/{id}",
            "Deletes one vector",
            data::delete_vector,
        )
        .writes()
        .answers::<VectorDeleted>(),
        Endpoint::post("/update", "Changes one vector", data::update_vector)
            .writes()
            .takes::<UpdateVector>()
            .answers::<VectorUpdated>(),
        Endpoint::post("/batch_update", "Changes vectors", data::batch_update)
            .writes()
            .takes::<BatchUpdate>()
            .answers::<BatchUpdated>(),
        Endpoint::post("/batch_delete", "Deletes vectors", data::batch_delete)
            .writes()
            .takes::<BatchDelete>()
            .answers::<BatchDeleted>(),
        Endpoint::post(
            "/collections/{name}/search",
            "Searches by vector or by text",
            data::search,
        )
        .reads()
        .takes::<Search>()
        .answers::<SearchResults>(),
        Endpoint::post(
            "/collections/{name}/search/text",
            "Searches by text",
            data::search_text,
        )
        .reads()
        .takes::<Search>()
        .answers::<SearchResults>(),
        Endpoint::post(
            "/collections/{name}/hybrid_search",
            "Searches by text, by meaning and by words",
            data::hybrid_search,
        )
        .reads()
        .takes::<HybridSearch>()
        .answers::<HybridResults>(),
        Endpoint::post(
            "/batch_search",
            "Several searches at once",
            data::batch_search,
        )
        .reads()
        .takes::<BatchSearch>()
        .answers::<BatchResults>(),
        Endpoint::post("/embed", "Turns a text into a vector", data::embed)
            .needs(Kind::Node, Access::Read)
            .takes::<EmbedRequest>()
            .answers::<Embedding>(),
    ]
}
