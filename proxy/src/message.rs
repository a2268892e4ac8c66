//! What is said on the wire: targets, headers, bodies, failures and the statuses they become.
//!
//! Pure over parsed input; nothing here reads a socket or knows the gateway.

pub mod body;
pub mod failure;
pub mod framing;
pub mod headers;
pub mod rate;
pub mod status;
pub mod target;
