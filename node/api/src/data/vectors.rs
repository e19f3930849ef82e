//! Vectors: inserted as text or numbers, read, changed, deleted. A batch is one entry of the log.

use serde::{Deserialize, Serialize};

use super::{Payload, Present};

/// `POST /insert`: one text.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "InsertText"))]
#[serde(deny_unknown_fields)]
pub struct InsertText<P = Payload> {
    /// Where to.
    pub collection: String,
    /// Its id; a random UUID when absent. An existing vector of that id is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The text, embedded on the master and kept in the payload.
    pub text: String,
    /// The rest of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<P>,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Present>,
}

/// Answer of `POST /insert`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TextInserted {
    /// That it was inserted.
    pub message: String,
    /// Number of vectors: 1.
    pub vectors_created: usize,
    /// The vector's id.
    pub vector_ids: Vec<String>,
    /// The collection.
    pub collection: String,
    /// Whether the text was cut into several vectors: never.
    pub chunked: bool,
}

/// `POST /insert_texts` and `POST /batch_insert`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "InsertTexts"))]
#[serde(deny_unknown_fields)]
pub struct InsertTexts<P = Payload> {
    /// Where to.
    pub collection: String,
    /// The texts.
    #[serde(
        deserialize_with = "super::bounded::items",
        bound(deserialize = "P: Deserialize<'de> + Default")
    )]
    pub texts: Vec<TextItem<P>>,
    /// All or none; otherwise the good items are applied and the bad ones reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub atomic: bool,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Present>,
}

/// One text of a batch.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "TextItem"))]
#[serde(deny_unknown_fields)]
pub struct TextItem<P = Payload> {
    /// As in [`InsertText`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The text.
    pub text: String,
    /// The rest of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<P>,
}

/// `POST /insert_vectors`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "InsertVectors"))]
#[serde(deny_unknown_fields)]
pub struct InsertVectors<P = Payload> {
    /// Where to.
    pub collection: String,
    /// The vectors.
    #[serde(
        deserialize_with = "super::bounded::items",
        bound(deserialize = "P: Deserialize<'de> + Default")
    )]
    pub vectors: Vec<EmbeddingItem<P>>,
    /// All or none; otherwise the good items are applied and the bad ones reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub atomic: bool,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Present>,
}

/// One vector of `POST /insert_vectors`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "EmbeddingItem"))]
#[serde(deny_unknown_fields)]
pub struct EmbeddingItem<P = Payload> {
    /// Its id; a random UUID when absent. An existing vector of that id is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// As many finite numbers as the collection has dimensions.
    #[serde(deserialize_with = "super::numbers::required")]
    pub embedding: Vec<f32>,
    /// The payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<P>,
    /// The payload when `payload` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<P>,
}

/// `POST /collections/{collection}/vectors`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "PutVectors"))]
#[serde(deny_unknown_fields)]
pub struct PutVectors<P = Payload> {
    /// The path's collection once more; refused when it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The vectors.
    #[serde(
        deserialize_with = "super::bounded::items",
        bound(deserialize = "P: Deserialize<'de> + Default")
    )]
    pub vectors: Vec<VectorItem<P>>,
    /// All or none; otherwise the good items are applied and the bad ones reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub atomic: bool,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Present>,
}

/// One vector of `POST /collections/{collection}/vectors`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "VectorItem"))]
#[serde(deny_unknown_fields)]
pub struct VectorItem<P = Payload> {
    /// Its id; a random UUID when absent. An existing vector of that id is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// As many finite numbers as the collection has dimensions.
    #[serde(deserialize_with = "super::numbers::required")]
    pub data: Vec<f32>,
    /// The payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<P>,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Present>,
}

/// Answer of the batch inserts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BatchInserted {
    /// The collection.
    pub collection: String,
    /// Items applied.
    pub inserted: usize,
    /// Items refused; nothing of them was applied.
    pub failed: usize,
    /// Items in the request.
    pub count: usize,
    /// One per item, in the order of the request.
    pub results: Vec<ItemOutcome>,
}

/// What became of one item of a batch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ItemOutcome {
    /// The vector's id, given or made.
    pub id: String,
    /// `ok` or `error`.
    pub status: ItemStatus,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its place in the request, from 0.
    pub index: usize,
    /// The id that the client sent; absent when it sent none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// Whether one item of a batch was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ItemStatus {
    /// Applied.
    Ok,
    /// Refused.
    Error,
}

/// Query of `GET /collections/{collection}/vectors`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ListVectors {
    /// Vectors on a page, 1 to 1,000; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Vectors to leave out before it; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    /// In place of `offset`: the `next` of the page before, or empty for the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Answer of `GET /collections/{collection}/vectors`.
///
/// Ordered by id; with `after` in an order of its own, which is the same on every node and which no write changes: who
/// follows `next` to the end sees every vector that was there all the time once.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VectorPage {
    /// The page.
    pub vectors: Vec<Vector>,
    /// Vectors in the collection.
    pub total: usize,
    /// The limit applied.
    pub limit: usize,
    /// The offset applied; 0 with `after`.
    pub offset: usize,
    /// Asked for with `after`: what the next page is asked for with; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One vector, as `GET /collections/{collection}/vectors/{id}` answers it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Vector {
    /// Its id.
    pub id: String,
    /// Its numbers, as they were sent.
    #[serde(deserialize_with = "super::numbers::required")]
    pub vector: Vec<f32>,
    /// The same, under the name that other clients read; absent in lists.
    #[serde(
        default,
        deserialize_with = "super::numbers::required",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub data: Vec<f32>,
    /// The whole payload.
    pub payload: Payload,
    /// The payload without the text.
    pub metadata: Payload,
}

/// Answer of `DELETE /collections/{collection}/vectors/{id}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VectorDeleted {
    /// That it is gone.
    pub message: String,
    /// Its id.
    pub id: String,
    /// The collection.
    pub collection: String,
}

/// `POST /update`: one vector.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "UpdateVector"))]
#[serde(deny_unknown_fields)]
pub struct UpdateVector<P = Payload> {
    /// The collection.
    pub collection: String,
    /// Its id.
    pub id: String,
    /// Keys of the payload to set; others stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<P>,
    /// The same as `metadata`, under another name; send one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<P>,
    /// New numbers.
    #[serde(
        default,
        deserialize_with = "super::numbers::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub vector: Option<Vec<f32>>,
}

/// Answer of `POST /update`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VectorUpdated {
    /// That it was changed.
    pub message: String,
    /// Its id.
    pub id: String,
    /// The collection.
    pub collection: String,
}

/// `POST /batch_update`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "BatchUpdate"))]
#[serde(deny_unknown_fields)]
pub struct BatchUpdate<P = Payload> {
    /// The collection.
    pub collection: String,
    /// The changes.
    #[serde(
        deserialize_with = "super::bounded::items",
        bound(deserialize = "P: Deserialize<'de> + Default")
    )]
    pub updates: Vec<UpdateItem<P>>,
    /// All or none; otherwise the good items are applied and the bad ones reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub atomic: bool,
}

/// One change of a batch.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "UpdateItem"))]
#[serde(deny_unknown_fields)]
pub struct UpdateItem<P = Payload> {
    /// The vector's id.
    pub id: String,
    /// New numbers.
    #[serde(
        default,
        deserialize_with = "super::numbers::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub vector: Option<Vec<f32>>,
    /// Keys of the payload to set; others stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<P>,
    /// The same as `payload`, under another name; send one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<P>,
}

/// Answer of `POST /batch_update`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BatchUpdated {
    /// The collection.
    pub collection: String,
    /// Items in the request.
    pub count: usize,
    /// Items applied.
    pub updated: usize,
    /// Items refused.
    pub failed: usize,
    /// One per item, in the order of the request.
    pub results: Vec<ItemOutcome>,
}

/// `POST /batch_delete`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BatchDelete {
    /// The collection.
    pub collection: String,
    /// The ids.
    #[serde(deserialize_with = "super::bounded::items")]
    pub ids: Vec<String>,
    /// All or none; otherwise the good items are applied and the bad ones reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub atomic: bool,
}

/// Answer of `POST /batch_delete`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BatchDeleted {
    /// The collection.
    pub collection: String,
    /// Ids in the request.
    pub count: usize,
    /// Vectors deleted.
    pub deleted: usize,
    /// Ids refused.
    pub failed: usize,
    /// One per id, in the order of the request.
    pub results: Vec<ItemOutcome>,
}

fn is_false(value: &bool) -> bool {
    !value
}
