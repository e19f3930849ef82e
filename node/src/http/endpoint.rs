//! One endpoint: its place, what it asks for, who answers, and what the OpenAPI document says about it.

use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::Api;
use super::auth::Access;
use super::guard::guard;
use super::server::Port;

/// What a request does, and so what the node must be for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Asks about the node itself: always answered, however busy it is.
    System,
    /// Changes roles: always answered as well.
    Control,
    /// Asks about replication, or configures it: any role.
    Node,
    /// Reads data: wherever there is data.
    Read,
    /// Changes data: on the master only.
    Write,
}

/// What the guard needs to know of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    /// The path with its parameters: the label of its metrics.
    pub path: &'static str,
    pub kind: Kind,
    pub access: Access,
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One endpoint of the table.
pub(super) struct Endpoint {
    pub method: Method,
    pub path: &'static str,
    pub kind: Kind,
    pub access: Access,
    pub summary: &'static str,
    pub takes: Option<SchemaOf>,
    /// The content type of a body that is not JSON.
    pub takes_bytes: Option<&'static str>,
    pub answers: Option<SchemaOf>,
    /// Names of query parameters, with what they mean.
    pub query: &'static [(&'static str, &'static str)],
    handler: MethodRouter<Api>,
}

impl Endpoint {
    fn new(
        method: Method,
        path: &'static str,
        summary: &'static str,
        handler: MethodRouter<Api>,
    ) -> Self {
        Endpoint {
            method,
            path,
            kind: Kind::System,
            access: Access::Open,
            summary,
            takes: None,
            takes_bytes: None,
            answers: None,
            query: &[],
            handler,
        }
    }

    pub(super) fn get<H: Handler<T, Api>, T: 'static>(
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Endpoint::new(Method::GET, path, summary, get(handler))
    }

    pub(super) fn post<H: Handler<T, Api>, T: 'static>(
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Endpoint::new(Method::POST, path, summary, post(handler))
    }

    pub(super) fn delete<H: Handler<T, Api>, T: 'static>(
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Endpoint::new(Method::DELETE, path, summary, delete(handler))
    }

    pub(super) fn needs(mut self, kind: Kind, access: Access) -> Self {
        self.kind = kind;
        self.access = access;
        self
    }

    pub(super) fn reads(self) -> Self {
        self.needs(Kind::Read, Access::Read)
    }

    pub(super) fn writes(self) -> Self {
        self.needs(Kind::Write, Access::Admin)
    }

    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.takes = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    pub(super) fn takes_bytes(mut self, content_type: &'static str) -> Self {
        self.takes_bytes = Some(content_type);
        self
    }

    pub(super) fn answers<T: JsonSchema>(mut self) -> Self {
        self.answers = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    pub(super) fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    /// Whether it is served on a port: what is asked about the node and its replication, and commands, on both.
    pub(super) fn is_on(&self, port: Port) -> bool {
        port == Port::Rest
            || match self.kind {
                Kind::System | Kind::Control => true,
                Kind::Node => self.access == Access::Watch,
                Kind::Read | Kind::Write => false,
            }
    }

    /// The handler behind its guard.
    pub(super) fn guarded(self, api: &Api, port: Port) -> MethodRouter<Api> {
        let rule = Rule {
            path: self.path,
            kind: self.kind,
            access: self.access,
        };
        self.handler
            .route_layer(from_fn_with_state((api.clone(), rule, port), guard))
    }
}
