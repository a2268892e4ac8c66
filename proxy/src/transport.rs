//! The only place that knows Pingora's stream types and the TLS sockets under them.
//!
//! A federation connection is accepted here, handshaken with our own rustls configuration
//! (Pingora's listener keeps a session store whose resumed sessions skip the client-certificate
//! verifier), wrapped so that Pingora's HTTP server can drive it, and tied to the
//! [`gate::ConnectionGate`] that can stop its writes at any moment.
//!
//! Deciding anything about a request is elsewhere on purpose: see `inbound`.

pub mod balancer;
pub mod fence;
pub mod gate;
pub mod listener;
pub mod pause;
pub mod stream;
pub mod wait;

pub use balancer::Balancers;
pub use fence::ServeFence;
pub use gate::{AnswerGuard, ConnectionGate, CutCount, GateRegistry, Stale};
pub use listener::{AcceptedConnection, Acceptor, HandshakeResult, ListenerLimits};
pub use pause::PauseWatch;
pub use stream::{GatedStream, Heard, MtlsStream};
