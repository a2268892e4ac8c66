//! Whole sidecars in one process, and clients that say exactly the bytes they are told to.
//!
//! Invariant: everything is on loopback with ports the system chose, in a directory of its own, so
//! that any number of tests run at once. Nothing here replaces a part of the product: a sidecar is
//! started by the same function as by `serve`, and only its inputs (settings, clock, the content of
//! its store before the start) are chosen. Panics on misuse, since only tests use it.
//!
//! The reference gateway is a package of its own; what is checked is in `tests/suite`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod audit;
pub mod command;
pub mod database;
pub mod desk;
pub mod expect;
pub mod gateway;
pub mod grants;
pub mod home;
pub mod http2;
pub mod ledger;
pub mod operations;
pub mod raw;
pub mod replicas;
pub mod response;
pub mod tickets;
pub mod tls;
pub mod valkey;
pub mod wire;
pub mod world;

pub use expect::Denial;
pub use gateway::GatewayProcess;
pub use grants::Holder;
pub use home::Home;
pub use http2::Http2;
pub use raw::RawConnection;
pub use response::Response;
pub use wire::{Client, Wire};
pub use world::{World, WorldBuilder};
