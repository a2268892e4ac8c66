//! Who is at the other end of an enrollment connection: an address, and what it may still try.
//!
//! Invariant: only what an address itself did counts against it. Who it claims to be is for the token to say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::limit::SourceLimits;
use crate::limit::source::SourceRefusal;

/// The other end of one connection.
#[derive(Clone)]
pub struct Caller {
    address: IpAddr,
    sources: Arc<SourceLimits>,
}

impl Caller {
    /// The one at `address`, on a listener with these limits.
    #[must_use]
    pub const fn new(address: IpAddr, sources: Arc<SourceLimits>) -> Self {
        Self { address, sources }
    }

    /// Lets a new connection go on to its handshake.
    ///
    /// # Errors
    /// Why it is to be closed.
    pub fn admit(&self) -> Result<(), SourceRefusal> {
        self.sources.admit(self.address)
    }

    /// Counts a handshake or a token that was no good.
    pub fn failed(&self) {
        self.sources.failed(self.address);
    }

    /// How long until it may try another token, when it may not now.
    #[must_use]
    pub fn barred_for(&self) -> Option<Duration> {
        self.sources.barred_for(self.address)
    }
}
