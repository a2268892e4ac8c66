//! What the end of a request says of reaching its peer: did it answer, did it fail, or is nothing learned.
//!
//! Invariant: whatever shows that the peer works counts as answered, a refusal as much as rows: 4xx, 429, a full queue, an
//! alert for a revoked certificate, an answer larger than is accepted. What yields no usable answer is a failure:
//! the network, the deadlines (of a fan-out too), 5xx, what is not of the protocol. Pure.

use http::StatusCode;
use rustls::AlertDescription;

use super::answer::AnswerFault;
use super::breaker::Verdict;
use super::failure::DoorFailure;
use super::fault::AskError;

/// The verdict on a request without a reply.
#[must_use]
pub const fn of_silence(error: AskError) -> Verdict {
    match error {
        AskError::Unsendable => Verdict::Nothing,
        AskError::Died(Some(AlertDescription::CertificateRevoked)) => Verdict::Answered,
        AskError::Unresolved
        | AskError::Unreachable(_)
        | AskError::ConnectTimeout
        | AskError::TlsTimeout
        | AskError::Untrusted
        | AskError::Handshake(_)
        | AskError::Died(_)
        | AskError::FirstByteTimeout
        | AskError::TotalTimeout
        | AskError::NotHttp
        | AskError::Broken => Verdict::Failed,
    }
}

/// The verdict on a reply of that status which became a failure here.
#[must_use]
pub fn of_refusal(status: StatusCode, failure: &DoorFailure) -> Verdict {
    match failure {
        DoorFailure::Peer(error) if !status.is_server_error() || error.is_busy() => {
            Verdict::Answered
        }
        DoorFailure::BadAnswer(fault) => of_fault(*fault),
        DoorFailure::Offline(error) => of_silence(*error),
        _ => Verdict::Failed,
    }
}

/// The verdict on an answer that cannot be used.
#[must_use]
pub const fn of_fault(fault: AnswerFault) -> Verdict {
    match fault {
        // A fault of the question as much as of the peer.
        AnswerFault::TooLarge | AnswerFault::TooManyRows => Verdict::Answered,
        AnswerFault::Malformed | AnswerFault::Truncated | AnswerFault::TooDeep => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::failure::PeerError;
    use super::*;

    #[test]
    fn a_refusal_is_an_answer_and_a_server_error_is_none() {
        for (status, verdict) in [
            (400, Verdict::Answered),
            (403, Verdict::Answered),
            (404, Verdict::Answered),
            (429, Verdict::Answered),
            (500, Verdict::Failed),
            (503, Verdict::Failed),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let body = br#"{"error":{"code":"unavailable","message":"x"}}"#;
            let failure = DoorFailure::Peer(PeerError::parse(status, body).unwrap());
            assert_eq!(of_refusal(status, &failure), verdict, "{status}");
            let strange = DoorFailure::Strange(status);
            assert_eq!(of_refusal(status, &strange), Verdict::Failed, "{status}");
        }
        for (reason, verdict) in [
            ("gateway_busy", Verdict::Answered),
            ("gateway_timeout", Verdict::Failed),
        ] {
            let body = format!(
                r#"{{"error":{{"code":"unavailable","message":"x","details":{{"reason":"{reason}"}}}}}}"#
            );
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let error = PeerError::parse(status, body.as_bytes()).unwrap();
            assert_eq!(of_refusal(status, &DoorFailure::Peer(error)), verdict);
        }
    }

    #[test]
    fn only_what_shows_that_the_peer_works_is_no_failure() {
        let revoked = AskError::Died(Some(AlertDescription::CertificateRevoked));
        assert_eq!(of_silence(revoked), Verdict::Answered);
        assert_eq!(of_silence(AskError::Unsendable), Verdict::Nothing);
        for error in [
            AskError::Died(None),
            AskError::Died(Some(AlertDescription::CertificateExpired)),
            AskError::TotalTimeout,
            AskError::Untrusted,
        ] {
            assert_eq!(of_silence(error), Verdict::Failed, "{error}");
        }
        assert_eq!(of_fault(AnswerFault::TooLarge), Verdict::Answered);
        assert_eq!(of_fault(AnswerFault::Truncated), Verdict::Failed);
    }
}
