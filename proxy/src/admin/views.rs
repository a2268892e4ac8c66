//! What operations answer: the store's records as JSON, without anything secret.
//!
//! Invariant: fields are only ever added. Instants are RFC 3339 UTC, or `null`; ids and digests are lower case.

use std::time::Duration;

use policy::grant::GrantStatus;
use policy::id::{GrantId, SubjectId, UserId};
use policy::peer::{PeerName, PeerState};
use policy::recorded::{AnswerThen, RecordedDecision};
use policy::scope::Scope;
use policy::time::UnixMillis;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::certificates::{renews_at, serial_of};
use crate::audit::AuditRow;
use crate::outbound::{BreakerState, ReachState, WitnessState};
use crate::store::{
    CertificateEntry, CredentialState, GrantRecord, OutboundCredential, PeerRecord,
};

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// A grant.
#[derive(Debug, Clone, Serialize)]
pub struct GrantView {
    /// Its id.
    pub id: GrantId,
    /// Its peer's local name.
    pub peer: PeerName,
    /// The user whose data it opens.
    pub user: UserId,
    /// The same user as certificates name them.
    pub subject: SubjectId,
    /// What counts now: an active grant whose end has come shows as expired.
    pub status: GrantStatus,
    /// What it covers.
    pub scope: Scope,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When an enrollment last completed.
    pub activated_at: Option<UnixMillis>,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
    /// Why.
    pub reason: Option<String>,
}

impl GrantView {
    /// The view of a record at `now`.
    #[must_use]
    pub fn of(record: &GrantRecord, peer: PeerName, now: UnixMillis) -> Self {
        let grant = &record.grant;
        Self {
            id: grant.id,
            peer,
            user: grant.user.clone(),
            subject: grant.subject,
            status: grant.status_at(now),
            scope: grant.scope.clone(),
            created_at: grant.created_at,
            activated_at: record.activated_at,
            expires_at: grant.ends_at(),
            revoked_at: record.revoked_at,
            reason: record.reason.clone(),
        }
    }
}

/// A certificate issued to a peer.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateView {
    /// SHA-256 of the leaf.
    pub fingerprint: String,
    /// Serial number.
    pub serial: String,
    /// `active`, `superseded` or `revoked`.
    pub state: &'static str,
    /// Start of validity.
    pub not_before: UnixMillis,
    /// End of validity.
    pub not_after: UnixMillis,
    /// Whole days until then, negative when past.
    pub days_left: i64,
    /// When it was first used; a renewed one is `null` until then.
    pub confirmed_at: Option<UnixMillis>,
    /// When a newer one takes over for good.
    pub retires_at: Option<UnixMillis>,
}

impl CertificateView {
    /// The view of an entry at `now`.
    #[must_use]
    pub fn of(entry: &CertificateEntry, now: UnixMillis) -> Self {
        Self {
            fingerprint: hex::encode(entry.fingerprint),
            serial: entry.serial.clone(),
            state: entry.state_at(now).as_str(),
            not_before: entry.not_before,
            not_after: entry.not_after,
            days_left: days_left(entry.not_after, now),
            confirmed_at: entry.confirmed_at,
            retires_at: entry.retires_at,
        }
    }
}

/// A peer of either direction.
#[derive(Debug, Clone, Serialize)]
pub struct PeerView {
    /// Its local name.
    pub name: PeerName,
    /// `inbound`: it asks us; `outbound`: we ask it.
    pub direction: &'static str,
    /// Its state.
    pub state: PeerState,
    /// Where it is asked.
    pub endpoint_url: Option<String>,
    /// When it was added.
    pub created_at: UnixMillis,
    /// The last contact that worked.
    pub last_success_at: Option<UnixMillis>,
    /// The last one that did not.
    pub last_failure_at: Option<UnixMillis>,
    /// Why not.
    pub last_failure: Option<String>,
    /// What we hold for asking it (outbound only), newest first.
    pub credentials: Vec<CredentialView>,
    /// What this process knows of reaching it (outbound only).
    pub reach: Option<ReachView>,
    /// What it says of its record of our grant there (outbound only).
    pub witness: Option<WitnessView>,
}

/// What a peer says of its record of our grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WitnessView {
    /// The grant.
    pub grant: GrantId,
    /// Whether its signatures can be verified: it gave its key at enrollment.
    pub verifies: bool,
    /// The newest record it has shown, and when that was heard.
    pub record: Option<u64>,
    /// When.
    pub heard_at: Option<UnixMillis>,
    /// The newest record that it signed for.
    pub signed_record: Option<u64>,
    /// When, by its clock.
    pub signed_at: Option<UnixMillis>,
    /// Times, since the start, that its record did not hold together.
    pub alarms: u64,
    /// Why, the last time.
    pub alarm: Option<String>,
    /// When that was.
    pub alarm_at: Option<UnixMillis>,
}

impl WitnessView {
    /// The view of what is known.
    #[must_use]
    pub fn of(grant: GrantId, verifies: bool, state: WitnessState) -> Self {
        let (alarm, alarm_at) = state.alarm.unzip();
        Self {
            grant,
            verifies,
            record: state.newest.map(|(head, _)| head.gseq),
            heard_at: state.newest.map(|(_, at)| at),
            signed_record: state.signed.map(|(gseq, _)| gseq),
            signed_at: state.signed.map(|(_, at)| at),
            alarms: state.alarms,
            alarm,
            alarm_at,
        }
    }
}

/// What a process knows of reaching a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReachView {
    /// `closed`, `open` or `half_open`.
    pub breaker: &'static str,
    /// Until when nothing is asked.
    pub open_until: Option<UnixMillis>,
    /// Until when the peer wants fewer requests.
    pub limited_until: Option<UnixMillis>,
    /// Requests it last said were left of its limit.
    pub rate_left: Option<u64>,
    /// When that changes, seconds from its answer.
    pub rate_reset_s: Option<u64>,
    /// Requests that are out.
    pub in_flight: usize,
}

impl ReachView {
    /// The view at `now`.
    #[must_use]
    pub fn of(state: &ReachState, now: UnixMillis) -> Self {
        let at = |wait: Duration| {
            now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
        };
        let (breaker, open_until) = match state.breaker {
            BreakerState::Closed => ("closed", None),
            BreakerState::Open(left) => ("open", Some(at(left))),
            BreakerState::HalfOpen => ("half_open", None),
        };
        Self {
            breaker,
            open_until,
            limited_until: state.limited.map(at),
            rate_left: state.rate.map(|rate| rate.remaining),
            rate_reset_s: state.rate.and_then(|rate| rate.reset_s),
            in_flight: state.in_flight,
        }
    }
}

impl PeerView {
    /// The view of a record with those of `credentials` that are the peer's.
    #[must_use]
    pub fn of(record: &PeerRecord, credentials: &[OutboundCredential], now: UnixMillis) -> Self {
        Self {
            name: record.name.clone(),
            direction: record.direction.as_str(),
            state: shown_state(record, credentials),
            endpoint_url: record.endpoint_url.clone(),
            created_at: record.created_at,
            last_success_at: record.last_success_at,
            last_failure_at: record.last_failure_at,
            last_failure: record.last_failure.clone(),
            credentials: credentials
                .iter()
                .filter(|credential| credential.peer == record.id)
                .map(|credential| CredentialView::of(credential, now))
                .collect(),
            reach: None,
            witness: None,
        }
    }
}

/// A peer we ask shows `revoked` when all its grants are (specification, section 2).
fn shown_state(record: &PeerRecord, credentials: &[OutboundCredential]) -> PeerState {
    let mut current = credentials
        .iter()
        .filter(|credential| credential.peer == record.id)
        .filter(|credential| credential.state != CredentialState::Superseded)
        .peekable();
    let any = current.peek().is_some();
    if any && current.all(|credential| credential.state == CredentialState::Revoked) {
        PeerState::Revoked
    } else {
        record.state
    }
}

/// A credential we hold for asking a peer.
#[derive(Debug, Clone, Serialize)]
pub struct CredentialView {
    /// The grant on the peer.
    pub grant: GrantId,
    /// The local user it acts for.
    pub user: UserId,
    /// The subject on the peer.
    pub subject: SubjectId,
    /// Its state.
    pub state: &'static str,
    /// Serial number of its certificate.
    pub serial: Option<String>,
    /// End of validity.
    pub not_after: UnixMillis,
    /// Whole days until then, negative when past.
    pub days_left: i64,
    /// When it is renewed, or tried again.
    pub renews_at: Option<UnixMillis>,
    /// Failed tries to renew it since the last that worked.
    pub renewal_failures: u32,
    /// Why the last one failed.
    pub renewal_failure: Option<String>,
}

impl CredentialView {
    fn of(credential: &OutboundCredential, now: UnixMillis) -> Self {
        Self {
            grant: credential.grant,
            user: credential.local_user.clone(),
            subject: credential.subject,
            state: credential.state.as_str(),
            serial: serial_of(&credential.chain_pem),
            not_after: credential.not_after,
            days_left: days_left(credential.not_after, now),
            renews_at: renews_at(credential, now),
            renewal_failures: credential.tries.failures,
            renewal_failure: credential.tries.failure.clone(),
        }
    }
}

/// Whole days from `now` to `end`, rounded down.
#[must_use]
pub const fn days_left(end: UnixMillis, now: UnixMillis) -> i64 {
    end.since(now).div_euclid(DAY)
}

/// One row of the audit log with the column names of the specification, section 11; absent ones are left out.
#[must_use]
pub fn audit_row(row: &AuditRow) -> Value {
    let record = &row.record;
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            out.insert(key.to_owned(), value);
        }
    };
    let text =
        |text: &Option<crate::audit::AuditText>| text.as_ref().map(|text| text.as_str().to_owned());
    put("id", json!(record.id));
    put("at", json!(record.at));
    put("direction", json!(record.direction.as_str()));
    put("outcome", json!(record.outcome.as_str()));
    put("request_id", json!(record.request_id.as_str()));
    put("peer_request_id", json!(text(&record.peer_request_id)));
    put("attempt", json!(record.attempt));
    put("trace_id", json!(text(&record.trace_id)));
    put("peer_id", json!(record.peer));
    put("grant_id", json!(record.grant));
    put("subject_user_id", json!(record.subject));
    put("cert_serial", json!(text(&record.cert_serial)));
    put("verb", json!(text(&record.verb)));
    put("resource", json!(text(&record.resource)));
    put("query_hash", json!(record.query_hash.map(hex::encode)));
    put("deny_stage", json!(text(&record.deny_stage)));
    put("deny_code", json!(text(&record.deny_code)));
    put("http_status", json!(record.http_status));
    put("rows_returned", json!(record.rows_returned));
    put("rows_withheld", json!(record.rows_withheld));
    put("bytes_out", json!(record.bytes_out));
    put("latency_us", json!(record.latency_us));
    put("revision", json!(record.revision));
    put("action", json!(text(&record.action)));
    put("actor", json!(text(&record.actor)));
    let detail = record
        .detail
        .as_ref()
        .and_then(|detail| serde_json::from_str(&detail.to_json()).ok());
    put("detail", detail.unwrap_or(Value::Null));
    put("decision", json!(record.decision.as_ref().map(decision)));
    put(
        "witnessed",
        json!(record.witnessed.map(|head| json!({
            "chain": head.chain,
            "gseq": head.gseq,
            "ghash": hex::encode(head.ghash),
        }))),
    );
    put("count", json!(record.count));
    put("position", json!(row.position));
    let link = row.link.as_ref();
    put("chain", json!(link.map(|link| link.chain)));
    put("seq", json!(link.map(|link| link.seq)));
    put(
        "prev_hash",
        json!(link.map(|link| hex::encode(link.prev_hash))),
    );
    put("hash", json!(link.map(|link| hex::encode(link.hash))));
    let place = row.history.as_ref();
    put("gseq", json!(place.map(|place| place.gseq)));
    put("ghash", json!(place.map(|place| hex::encode(place.ghash))));
    Value::Object(out)
}

/// What a decision came to; the bytes themselves where this program cannot read them.
fn decision(recorded: &RecordedDecision) -> Value {
    let Ok(then) = recorded.decode() else {
        return json!({ "bytes": hex::encode(recorded.as_bytes()) });
    };
    let answers: Vec<Value> = then
        .answers
        .iter()
        .map(|answer| match answer {
            AnswerThen::Refused(resource) => json!({"refused": true, "resource": resource}),
            AnswerThen::Permitted(permit) => json!({
                "resource": permit.resource,
                "teams": permit.teams,
                "more_teams": permit.unnamed_teams,
                "include_personal": permit.include_personal,
                "rows": permit.row_limit,
                "row_cap": permit.row_cap,
            }),
        })
        .collect();
    json!({
        "effective_revision": then.effective_revision.to_string(),
        "edit": then.edit,
        "answers": answers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_left_round_down_through_the_end() {
        let end = UnixMillis(10 * DAY);
        assert_eq!(days_left(end, UnixMillis(0)), 10);
        assert_eq!(days_left(end, UnixMillis(1)), 9);
        assert_eq!(days_left(end, UnixMillis(10 * DAY)), 0);
        assert_eq!(days_left(end, UnixMillis(10 * DAY + 1)), -1);
    }
}
