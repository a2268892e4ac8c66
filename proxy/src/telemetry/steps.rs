//! The steps of a renewal, told as they are done: a process may end behind any of them.
//!
//! Invariant: being told changes nothing; `serve` writes them to its log. Which acts a step lies between is said there.

/// A step of a renewal, on either side. A write to the database lies between two that follow each other where that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalStep {
    /// Asking: a try is to be written down.
    Due,
    /// Asking: it was written down. Key and request are to be stored next.
    Tried,
    /// Asking: key and request are stored, and nothing was sent.
    RequestKept,
    /// Asking: the answer is here, and is to be stored.
    Answered,
    /// Asking: the answer is stored, and was not used.
    AnswerKept,
    /// Asking: the peer has answered to the new credential, which is to take the place of the old one.
    Proved,
    /// Asking: it has taken it in the store, and not yet in what requests are sent by.
    Exchanged,
    /// Asking: requests go out with it.
    InUse,
    /// Serving: a request for renewal is here; its intent is to be stored.
    Asked,
    /// Serving: the intent is stored, and nothing was signed.
    Intended,
    /// Serving: the certificate is signed, and is to be registered.
    Signed,
    /// Serving: it is registered, and not yet in what requests are decided by.
    Registered,
    /// Serving: it opens the grant, and was not sent.
    InForce,
    /// Serving: it is used for the first time, which is to be stored.
    Used,
    /// Serving: its first use is stored, and not yet in what requests are decided by.
    Confirmed,
    /// Serving: the one before it has ended, or ends after the overlap; the request is not answered.
    TakenOver,
}

impl RenewalStep {
    /// Those of the asking side, in order.
    pub const ASKING: [Self; 8] = [
        Self::Due,
        Self::Tried,
        Self::RequestKept,
        Self::Answered,
        Self::AnswerKept,
        Self::Proved,
        Self::Exchanged,
        Self::InUse,
    ];
    /// Those of the serving side, in order.
    pub const SERVING: [Self; 8] = [
        Self::Asked,
        Self::Intended,
        Self::Signed,
        Self::Registered,
        Self::InForce,
        Self::Used,
        Self::Confirmed,
        Self::TakenOver,
    ];
}

/// Is told of steps.
pub type Told = fn(RenewalStep);

/// Writes a step to the log.
pub fn log(step: RenewalStep) {
    tracing::debug!(?step, "renewing a certificate");
}
