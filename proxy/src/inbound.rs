//! The serving side of one federated request: authenticate, decide, ask, filter, answer, record.
//!
//! Invariant: the steps are values. `authenticate` gives the grant in force, `policy::admit` and
//! `decide` give a `Permit`, only a permit builds a row filter and a plan, and every exchange ends
//! in exactly one audit record, whatever happens to it (`finish`).
//!
//! Sockets and TLS are in `transport`, the gateway's side in `gateway`.

pub mod answer;
pub mod authenticate;
pub mod budget;
pub mod finish;
pub mod lease;
pub mod probe;
pub mod renew;
pub mod respond;
pub mod search;
pub mod self_attack;
pub mod service;
pub mod shadow;
