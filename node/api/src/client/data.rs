//! Collections and vectors.
//!
//! Writes answer a [`Reply`] with the write's position, so that a caller can ask another node for at least that.

use reqwest::Method;

use super::{Client, ClientError, Reply};
use crate::data::{
    BatchDelete, BatchDeleted, BatchInserted, BatchResults, BatchSearch, BatchUpdate, BatchUpdated,
    Collection, CollectionCreated, CollectionDeleted, Collections, CreateCollection, EmbedRequest,
    Embedding, Health, HybridResults, HybridSearch, InsertText, InsertTexts, InsertVectors,
    PutVectors, Search, SearchResults, TextInserted, UpdateVector, Vector, VectorDeleted,
    VectorPage, VectorUpdated,
};

impl Client {
    /// `GET /health`.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get("/health").await
    }

    /// `POST /collections`.
    pub async fn create_collection(
        &self,
        wish: &CreateCollection,
    ) -> Result<Reply<CollectionCreated>, ClientError> {
        self.call(Method::POST, "/collections", Some(wish)).await
    }

    /// `GET /collections`.
    pub async fn collections(&self) -> Result<Collections, ClientError> {
        self.get("/collections").await
    }

    /// `GET /collections/{name}`.
    pub async fn collection(&self, name: &str) -> Result<Collection, ClientError> {
        self.get(&collection_path(name, "")).await
    }

    /// `DELETE /collections/{name}`.
    pub async fn delete_collection(
        &self,
        name: &str,
    ) -> Result<Reply<CollectionDeleted>, ClientError> {
        self.call::<(), _>(Method::DELETE, &collection_path(name, ""), None)
            .await
    }

    /// `POST /insert`.
    pub async fn insert_text(
        &self,
        request: &InsertText,
    ) -> Result<Reply<TextInserted>, ClientError> {
        self.call(Method::POST, "/insert", Some(request)).await
    }

    /// `POST /insert_texts`.
    pub async fn insert_texts(
        &self,
        request: &InsertTexts,
    ) -> Result<Reply<BatchInserted>, ClientError> {
        self.call(Method::POST, "/insert_texts", Some(request))
            .await
    }

    /// `POST /insert_vectors`.
    pub async fn insert_vectors(
        &self,
        request: &InsertVectors,
    ) -> Result<Reply<BatchInserted>, ClientError> {
        self.call(Method::POST, "/insert_vectors", Some(request))
            .await
    }

    /// `POST /collections/{collection}/vectors`.
    pub async fn put_vectors(
        &self,
        collection: &str,
        request: &PutVectors,
    ) -> Result<Reply<BatchInserted>, ClientError> {
        let path = collection_path(collection, "/vectors");
        self.call(Method::POST, &path, Some(request)).await
    }

    /// `GET /collections/{collection}/vectors`.
    pub async fn list_vectors(
        &self,
        collection: &str,
        limit: usize,
        offset: usize,
    ) -> Result<VectorPage, ClientError> {
        let path = collection_path(collection, "/vectors");
        self.get(&format!("{path}?limit={limit}&offset={offset}"))
            .await
    }

    /// `GET /collections/{collection}/vectors` with `after`: empty for the first page, then what the page before says in
    /// `next`.
    pub async fn list_vectors_after(
        &self,
        collection: &str,
        limit: usize,
        after: &str,
    ) -> Result<VectorPage, ClientError> {
        let path = collection_path(collection, "/vectors");
        let after = segment(after);
        self.get(&format!("{path}?limit={limit}&after={after}"))
            .await
    }

    /// `GET /collections/{collection}/vectors/{id}`.
    pub async fn vector(&self, collection: &str, id: &str) -> Result<Vector, ClientError> {
        self.get(&vector_path(collection, id)).await
    }

    /// `DELETE /collections/{collection}/vectors/{id}`.
    pub async fn delete_vector(
        &self,
        collection: &str,
        id: &str,
    ) -> Result<Reply<VectorDeleted>, ClientError> {
        self.call::<(), _>(Method::DELETE, &vector_path(collection, id), None)
            .await
    }

    /// `POST /update`.
    pub async fn update_vector(
        &self,
        request: &UpdateVector,
    ) -> Result<Reply<VectorUpdated>, ClientError> {
        self.call(Method::POST, "/update", Some(request)).await
    }

    /// `POST /batch_update`.
    pub async fn batch_update(
        &self,
        request: &BatchUpdate,
    ) -> Result<Reply<BatchUpdated>, ClientError> {
        self.call(Method::POST, "/batch_update", Some(request))
            .await
    }

    /// `POST /batch_delete`.
    pub async fn batch_delete(
        &self,
        request: &BatchDelete,
    ) -> Result<Reply<BatchDeleted>, ClientError> {
        self.call(Method::POST, "/batch_delete", Some(request))
            .await
    }

    /// `POST /collections/{collection}/search`.
    pub async fn search(
        &self,
        collection: &str,
        request: &Search,
    ) -> Result<SearchResults, ClientError> {
        let path = collection_path(collection, "/search");
        self.post(&path, request).await
    }

    /// `POST /collections/{collection}/hybrid_search`.
    pub async fn hybrid_search(
        &self,
        collection: &str,
        request: &HybridSearch,
    ) -> Result<HybridResults, ClientError> {
        let path = collection_path(collection, "/hybrid_search");
        self.post(&path, request).await
    }

    /// `POST /batch_search`.
    pub async fn batch_search(&self, request: &BatchSearch) -> Result<BatchResults, ClientError> {
        self.post("/batch_search", request).await
    }

    /// `POST /embed`.
    pub async fn embed(&self, request: &EmbedRequest) -> Result<Embedding, ClientError> {
        self.post("/embed", request).await
    }
}

fn collection_path(name: &str, rest: &str) -> String {
    format!("/collections/{}{rest}", segment(name))
}

fn vector_path(collection: &str, id: &str) -> String {
    collection_path(collection, &format!("/vectors/{}", segment(id)))
}

/// One path segment: everything outside the unreserved characters of RFC 3986 is percent-encoded. The ids `.` and `..`
/// cannot be said in a path at all; the batch calls take them.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_cannot_leave_their_place_in_the_path() {
        assert_eq!(collection_path("docs-1.x", ""), "/collections/docs-1.x");
        assert_eq!(
            vector_path("docs", "a/b?c#d e%ü"),
            "/collections/docs/vectors/a%2Fb%3Fc%23d%20e%25%C3%BC"
        );
    }
}
