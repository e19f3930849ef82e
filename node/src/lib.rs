//! The server behind `vectorizer-node`: a vector store that replicates itself.
//!
//! A write goes `http → writer → journal → store → link`; a replica's goes `link → writer → journal → store`. The writer
//! is the only one that changes anything: journal order, apply order and visibility order are the same.

mod background;
mod breakage;
mod clock;
pub mod config;
pub mod data_dir;
pub mod doctor;
pub mod http;
pub mod inspect;
pub mod journal;
pub mod lease;
pub mod link;
mod listen;
pub mod memory;
pub mod metrics;
pub mod permit;
pub mod replicas;
pub mod role;
pub mod server;
mod step;
pub mod store;
pub mod writer;
