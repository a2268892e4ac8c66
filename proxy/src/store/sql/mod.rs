//! The statements of the store, and the rows they are about: one text for every database.
//!
//! Invariant: this directory is compiled once for each database, as a part of it (`#[path]` in `sqlite.rs` and `postgres.rs`), with
//! that database's types; it names none. What differs comes from the database's own `dialect` and `writer`: types,
//! the few words that are not the same, the meaning of errors, how a write begins. Statements are written with `$1`, with
//! `CASE`, and with conflicts named, which both databases read alike.

mod audit;
mod audit_archive;
mod audit_chain;
mod audit_heads;
mod audit_history;
mod audit_query;
mod certificates;
mod change;
mod column;
mod contact;
mod dispatch;
mod enrollment;
mod expiry;
mod grants;
mod image;
mod open_chain;
mod outbound;
mod outbound_renewal;
mod peers;
mod policy_bundle;
mod renewal;
mod renewal_store;
mod replicas;
mod revocation;
mod revocation_store;
mod rows_seen;
mod sealing;
mod secrets;
mod sessions;
mod tokens;
mod trust;
mod witnessed;

use super::{Handle, dialect, writer};

pub(in crate::store) use open_chain::OpenChain;
