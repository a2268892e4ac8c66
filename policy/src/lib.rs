//! Who may see what: a question goes in, a decision with its explanation comes out.
//!
//! Invariant: everything here is pure. No I/O, no clock, no randomness, no async, no logging; time and keys are
//! arguments. Every path that is not explicitly allowed is denied, and each step of a decision can only narrow.
//!
//! Elsewhere on purpose: certificates and their proof (`certs`), HTTP and its status codes, the store and the
//! gateway client (the proxy).

pub mod cases;
pub mod compat;
pub mod decision;
pub mod deny;
pub mod evaluate;
pub mod explain;
pub mod flat;
pub mod grant;
pub mod id;
pub mod local;
pub mod mapping;
pub mod native;
pub mod peer;
pub mod plan;
pub mod query_hash;
pub mod rank;
pub mod rate;
pub mod reach;
pub mod recorded;
pub mod replay;
pub mod request;
pub mod resource;
pub mod revision;
pub mod rows;
pub mod rules;
pub mod scope;
pub mod shadow;
pub mod shards;
pub mod snapshot;
pub mod strict_json;
pub mod time;
pub mod verb;
