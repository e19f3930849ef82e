//! Vectors: inserted as text or numbers, read, changed, deleted. A batch is one entry of the log.

use serde::{Deserialize, Serialize};

use super::Payload;

/// `POST /insert`: one text.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InsertText {
    /// Where to.
    pub collection: String,
    /// Its id; a random UUID when absent. An existing vector of that id is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The text, embedded on the master and kept in the payload.
    pub text: String,
    /// The rest of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Payload>,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<serde_json::Value>,
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
#[serde(deny_unknown_fields)]
pub struct InsertTexts {
    /// Where to.
    pub collection: String,
    /// The texts.
    pub texts: Vec<TextItem>,
    /// All or none; otherwise the good items are applied and the bad ones reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub atomic: bool,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<serde_json::Value>,
}

/// One text of a batch.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TextItem {
    /// As in [`InsertText`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The text.
    pub text: String,
    /// The rest of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Payload>,
}

/// `POST /insert_vectors`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InsertVectors {
    /// Where to.
    pub collection: String,
    /// The vectors.
    pub vectors: Vec<EmbeddingItem>,
    /// All or none; otherwise the good items are applied and the bad ones reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub atomic: bool,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<serde_json::Value>,
}

/// One vector of `POST /insert_vectors`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EmbeddingItem {
    /// Its id; a random UUID when absent. An existing vector of that id is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// As many finite numbers as the collection has dimensions.
    #[serde(deserialize_with = "super::numbers::required")]
    pub embedding: Vec<f32>,
    /// The payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// The payload when `payload` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Payload>,
}

/// `POST /collections/{collection}/vectors`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PutVectors {
    /// The path's collection once more; refused when it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The vectors.
    pub vectors: Vec<VectorItem>,
    /// All or none; otherwise the good items are applied and the bad ones reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub atomic: bool,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<serde_json::Value>,
}

/// One vector of `POST /collections/{collection}/vectors`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VectorItem {
    /// Its id; a random UUID when absent. An existing vector of that id is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// As many finite numbers as the collection has dimensions.
    #[serde(deserialize_with = "super::numbers::required")]
    pub data: Vec<f32>,
    /// The payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Payload>,
    /// Encryption is not supported: anything but null is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<serde_json::Value>,
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ListVectors {
    /// Vectors on a page, 1 to 1,000; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Vectors to leave out before it; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}

/// Answer of `GET /collections/{collection}/vectors`, ordered by id.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VectorPage {
    /// The page.
    pub vectors: Vec<Vector>,
    /// Vectors in the collection.
    pub total: usize,
    /// The limit applied.
    pub limit: usize,
    /// The offset applied.
    pub offset: usize,
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
#[serde(deny_unknown_fields)]
pub struct UpdateVector {
    /// The collection.
    pub collection: String,
    /// Its id.
    pub id: String,
    /// Keys of the payload to set; others stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Payload>,
    /// The same as `metadata`, under another name; send one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
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
#[serde(deny_unknown_fields)]
pub struct BatchUpdate {
    /// The collection.
    pub collection: String,
    /// The changes.
    pub updates: Vec<UpdateItem>,
    /// All or none; otherwise the good items are applied and the bad ones reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub atomic: bool,
}

/// One change of a batch.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateItem {
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
    pub payload: Option<Payload>,
    /// The same as `payload`, under another name; send one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Payload>,
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
