//! Metrics of the connections of both ports.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    port: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Closed {
    port: &'static str,
    reason: &'static str,
}

/// Those of one port.
#[derive(Clone, Default)]
pub(crate) struct Connections {
    /// Open now.
    pub open: Gauge,
    /// Closed for others, as they were idle longest.
    pub displaced: Counter,
    /// Closed because their clients said nothing, or took nothing.
    pub silent: Counter,
    /// Not served, as every other one was being worked for.
    pub refused: Counter,
}

/// Those of both.
#[derive(Default)]
pub(super) struct Ports {
    open: Family<Of, Gauge>,
    closed: Family<Closed, Counter>,
}

impl Ports {
    /// Begins to export them.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let ports = Ports::default();
        registry.register(
            "http_connections",
            "Connections that are open",
            ports.open.clone(),
        );
        registry.register(
            "http_connections_closed",
            "Connections closed by the node before their clients did, by reason",
            ports.closed.clone(),
        );
        ports
    }

    pub(super) fn of(&self, port: &'static str) -> Connections {
        let closed = |reason| {
            let counter = self.closed.get_or_create(&Closed { port, reason });
            counter.clone()
        };
        Connections {
            open: self.open.get_or_create(&Of { port }).clone(),
            displaced: closed("displaced"),
            silent: closed("silent"),
            refused: closed("refused"),
        }
    }
}
