//! Renewing credentials in time: when a renewal is due, and by whose clock.
//!
//! Invariant: pure. Time, jitter and what has been tried are arguments; the task that renews is in the proxy.

pub mod peer_clock;
pub mod schedule;

pub use peer_clock::PeerClock;
pub use schedule::{Jitter, Life, Next, Tries};
