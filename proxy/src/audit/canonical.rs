//! The canonical bytes of a record: what the journal holds and what the chain authenticates.
//!
//! Invariant: a record has exactly one encoding, and decoding gives back an equal record; so a hash over the bytes is
//! a hash over the record. Fields that are absent, zero or 1 by default are left out, so a later field
//! with a tag of its own leaves the bytes of older records as they are. A tag is never used for something else.
//!
//! Layout: one version byte, then fields in ascending order of tag: tag (one byte), length (LEB128), value. Numbers are
//! eight bytes, little-endian; texts are UTF-8. Numbers above 2^63-1 are encoded as that, which is what the store keeps.

use policy::deny::DenyCode;
use policy::id::{GrantId, PeerId, SubjectId};
use policy::recorded::RecordedDecision;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::detail::AuditDetail;
use super::place::HistoryHead;
use super::record::{AuditOutcome, AuditRecord, Direction};
use super::text::AuditText;

/// The version of the encoding, its first byte.
pub const ENCODING_VERSION: u8 = 1;

mod tag {
    pub(super) const ID: u8 = 1;
    pub(super) const AT: u8 = 2;
    pub(super) const DIRECTION: u8 = 3;
    pub(super) const OUTCOME: u8 = 4;
    pub(super) const COUNT: u8 = 5;
    pub(super) const REQUEST_ID: u8 = 6;
    pub(super) const PEER_REQUEST_ID: u8 = 7;
    pub(super) const ATTEMPT: u8 = 8;
    pub(super) const TRACE_ID: u8 = 9;
    pub(super) const PEER: u8 = 10;
    pub(super) const GRANT: u8 = 11;
    pub(super) const SUBJECT: u8 = 12;
    pub(super) const CERT_SERIAL: u8 = 13;
    pub(super) const VERB: u8 = 14;
    pub(super) const RESOURCE: u8 = 15;
    pub(super) const QUERY_HASH: u8 = 16;
    pub(super) const DENY_STAGE: u8 = 17;
    pub(super) const DENY_CODE: u8 = 18;
    pub(super) const HTTP_STATUS: u8 = 19;
    pub(super) const ROWS_RETURNED: u8 = 20;
    pub(super) const ROWS_WITHHELD: u8 = 21;
    pub(super) const BYTES_OUT: u8 = 22;
    pub(super) const LATENCY_US: u8 = 23;
    pub(super) const REVISION: u8 = 24;
    pub(super) const ACTION: u8 = 25;
    pub(super) const ACTOR: u8 = 26;
    pub(super) const DETAIL: u8 = 27;
    pub(super) const DECISION: u8 = 28;
    pub(super) const WITNESSED: u8 = 29;
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end in the middle of something.
    #[error("the record ends early")]
    Short,
    /// Another version of the encoding.
    #[error("the record has encoding version {0}, which this program does not know; upgrade")]
    Version(u8),
    /// A field this version does not know.
    #[error("the record has a field {0} that this program does not know; upgrade")]
    UnknownField(u8),
    /// A field twice, or not in order.
    #[error("field {0} of the record is twice or out of order")]
    Order(u8),
    /// A field with a value that is never written.
    #[error("field {0} of the record has no valid value")]
    Value(u8),
}

/// Appends the canonical bytes of a record.
pub fn encode(record: &AuditRecord, out: &mut Vec<u8>) {
    write(record, 1, out);
}

/// As [`to_bytes`], but with the count always written, so that another count takes the same space. Only for the
/// journal, where it decodes to the same record; never hashed.
#[must_use]
pub(super) fn counted_bytes(record: &AuditRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(384);
    // No record stands for no request: this usual count is never met.
    write(record, 0, &mut out);
    out
}

fn write(record: &AuditRecord, usual_count: u64, out: &mut Vec<u8>) {
    out.push(ENCODING_VERSION);
    let mut fields = Fields(out);
    fields.put(tag::ID, record.id.as_bytes());
    fields.put(tag::AT, &record.at.0.to_le_bytes());
    fields.put(tag::DIRECTION, &[direction_code(record.direction)]);
    fields.put(tag::OUTCOME, &[outcome_code(record.outcome)]);
    fields.number(tag::COUNT, record.count, usual_count);
    fields.put(tag::REQUEST_ID, record.request_id.as_str().as_bytes());
    fields.text(tag::PEER_REQUEST_ID, record.peer_request_id.as_ref());
    fields.number(tag::ATTEMPT, u64::from(record.attempt), 1);
    fields.text(tag::TRACE_ID, record.trace_id.as_ref());
    fields.uuid(tag::PEER, record.peer.map(PeerId::uuid));
    fields.uuid(tag::GRANT, record.grant.map(GrantId::uuid));
    fields.uuid(tag::SUBJECT, record.subject.map(SubjectId::uuid));
    fields.text(tag::CERT_SERIAL, record.cert_serial.as_ref());
    fields.text(tag::VERB, record.verb.as_ref());
    fields.text(tag::RESOURCE, record.resource.as_ref());
    if let Some(hash) = &record.query_hash {
        fields.put(tag::QUERY_HASH, hash);
    }
    fields.text(tag::DENY_STAGE, record.deny_stage.as_ref());
    fields.text(tag::DENY_CODE, record.deny_code.as_ref());
    if let Some(status) = record.http_status {
        fields.put(tag::HTTP_STATUS, &u64::from(status).to_le_bytes());
    }
    fields.number(tag::ROWS_RETURNED, record.rows_returned, 0);
    fields.number(tag::ROWS_WITHHELD, record.rows_withheld, 0);
    fields.number(tag::BYTES_OUT, record.bytes_out, 0);
    fields.number(tag::LATENCY_US, record.latency_us, 0);
    if let Some(revision) = record.revision {
        fields.put(tag::REVISION, &kept(revision).to_le_bytes());
    }
    fields.text(tag::ACTION, record.action.as_ref());
    fields.text(tag::ACTOR, record.actor.as_ref());
    if let Some(detail) = &record.detail {
        fields.put(tag::DETAIL, detail.to_json().as_bytes());
    }
    if let Some(decision) = &record.decision {
        fields.put(tag::DECISION, decision.as_bytes());
    }
    if let Some(head) = &record.witnessed {
        fields.put(tag::WITNESSED, &head.to_bytes());
    }
}

/// Appends the bytes of what the peer may know of a record of its own grant, in the same encoding: not what the gateway
/// showed and was not passed on, not how the grant was reached or decided on, no number that others move, and no reason that
/// it was not told. What a peer may know of that again is the same.
pub(super) fn encode_told(record: &AuditRecord, out: &mut Vec<u8>) {
    out.push(ENCODING_VERSION);
    let is_told = |code: &&AuditText| DenyCode::parse(code.as_str()).is_some_and(DenyCode::is_told);
    let code = record.deny_code.as_ref().filter(is_told);
    let mut fields = Fields(out);
    fields.put(tag::ID, record.id.as_bytes());
    fields.put(tag::AT, &record.at.0.to_le_bytes());
    fields.put(tag::DIRECTION, &[direction_code(record.direction)]);
    fields.put(tag::OUTCOME, &[outcome_code(record.outcome)]);
    fields.number(tag::COUNT, record.count, 1);
    fields.put(tag::REQUEST_ID, record.request_id.as_str().as_bytes());
    fields.text(tag::PEER_REQUEST_ID, record.peer_request_id.as_ref());
    fields.number(tag::ATTEMPT, u64::from(record.attempt), 1);
    fields.text(tag::TRACE_ID, record.trace_id.as_ref());
    fields.uuid(tag::GRANT, record.grant.map(GrantId::uuid));
    fields.uuid(tag::SUBJECT, record.subject.map(SubjectId::uuid));
    fields.text(tag::CERT_SERIAL, record.cert_serial.as_ref());
    fields.text(tag::VERB, record.verb.as_ref());
    fields.text(tag::RESOURCE, record.resource.as_ref());
    if let Some(hash) = &record.query_hash {
        fields.put(tag::QUERY_HASH, hash);
    }
    if code.is_some() {
        fields.text(tag::DENY_STAGE, record.deny_stage.as_ref());
    }
    fields.text(tag::DENY_CODE, code);
    if let Some(status) = record.http_status {
        fields.put(tag::HTTP_STATUS, &u64::from(status).to_le_bytes());
    }
    fields.number(tag::ROWS_RETURNED, record.rows_returned, 0);
    fields.number(tag::BYTES_OUT, record.bytes_out, 0);
}

/// As [`encode_told`], on their own.
#[must_use]
pub(super) fn told_bytes(record: &AuditRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(384);
    encode_told(record, &mut out);
    out
}

/// The canonical bytes of a record.
#[must_use]
pub fn to_bytes(record: &AuditRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(384);
    encode(record, &mut out);
    out
}

/// The largest number that is kept.
const LARGEST: u64 = u64::MAX >> 1;

fn kept(number: u64) -> u64 {
    number.min(LARGEST)
}

struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn put(&mut self, tag: u8, value: &[u8]) {
        self.0.push(tag);
        let mut length = value.len();
        loop {
            let low = u8::try_from(length & 0x7f).unwrap_or(0);
            length >>= 7;
            if length == 0 {
                self.0.push(low);
                break;
            }
            self.0.push(low | 0x80);
        }
        self.0.extend_from_slice(value);
    }

    fn number(&mut self, tag: u8, value: u64, usual: u64) {
        if value != usual {
            self.put(tag, &kept(value).to_le_bytes());
        }
    }

    fn text(&mut self, tag: u8, text: Option<&AuditText>) {
        if let Some(text) = text {
            self.put(tag, text.as_str().as_bytes());
        }
    }

    fn uuid(&mut self, tag: u8, id: Option<Uuid>) {
        if let Some(id) = id {
            self.put(tag, id.as_bytes());
        }
    }
}

/// Reads a record from its canonical bytes.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<AuditRecord, DecodeError> {
    let (&version, mut rest) = bytes.split_first().ok_or(DecodeError::Short)?;
    if version != ENCODING_VERSION {
        return Err(DecodeError::Version(version));
    }
    let mut record = AuditRecord::new(
        Uuid::nil(),
        UnixMillis(0),
        Direction::Inbound,
        AuditOutcome::Aborted,
        AuditText::fixed(""),
    );
    let mut last = 0;
    let mut seen = 0_u32;
    while !rest.is_empty() {
        let (tag, value, behind) = field(rest)?;
        if tag <= last {
            return Err(DecodeError::Order(tag));
        }
        set(&mut record, tag, value)?;
        seen |= 1_u32.checked_shl(u32::from(tag)).unwrap_or(0);
        (last, rest) = (tag, behind);
    }
    for required in [
        tag::ID,
        tag::AT,
        tag::DIRECTION,
        tag::OUTCOME,
        tag::REQUEST_ID,
    ] {
        if seen & (1 << u32::from(required)) == 0 {
            return Err(DecodeError::Short);
        }
    }
    Ok(record)
}

/// The id of a record, without reading the rest of it.
#[must_use]
pub(super) fn id_of(bytes: &[u8]) -> Option<Uuid> {
    let (tag, value, _) = field(bytes.get(1..)?).ok()?;
    (tag == tag::ID).then(|| Uuid::from_slice(value).ok())?
}

fn field(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), DecodeError> {
    let (&tag, mut rest) = bytes.split_first().ok_or(DecodeError::Short)?;
    let mut length = 0_usize;
    // Four groups of seven bits are more than any record has.
    for group in 0..4 {
        let (&byte, behind) = rest.split_first().ok_or(DecodeError::Short)?;
        rest = behind;
        length |= usize::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            let (value, behind) = rest.split_at_checked(length).ok_or(DecodeError::Short)?;
            return Ok((tag, value, behind));
        }
    }
    Err(DecodeError::Value(tag))
}

fn set(record: &mut AuditRecord, tag: u8, value: &[u8]) -> Result<(), DecodeError> {
    let bad = || DecodeError::Value(tag);
    let word = || <[u8; 8]>::try_from(value).map_err(|_| bad());
    let number = || match word().map(u64::from_le_bytes)? {
        number if number <= LARGEST => Ok(number),
        _ => Err(bad()),
    };
    let uuid = || Uuid::from_slice(value).map_err(|_| bad());
    let text = || {
        let text = std::str::from_utf8(value).map_err(|_| bad())?;
        Ok(AuditText::stored(text.to_owned()))
    };
    let code = || <[u8; 1]>::try_from(value).map_err(|_| bad());
    match tag {
        tag::ID => record.id = uuid()?,
        tag::AT => record.at = UnixMillis(i64::from_le_bytes(word()?)),
        tag::DIRECTION => record.direction = direction_of(code()?).ok_or_else(bad)?,
        tag::OUTCOME => record.outcome = outcome_of(code()?).ok_or_else(bad)?,
        tag::COUNT => record.count = number()?,
        tag::REQUEST_ID => record.request_id = text()?,
        tag::PEER_REQUEST_ID => record.peer_request_id = Some(text()?),
        tag::ATTEMPT => record.attempt = u32::try_from(number()?).map_err(|_| bad())?,
        tag::TRACE_ID => record.trace_id = Some(text()?),
        tag::PEER => record.peer = Some(PeerId::new(uuid()?)),
        tag::GRANT => record.grant = Some(GrantId::new(uuid()?)),
        tag::SUBJECT => record.subject = Some(SubjectId::new(uuid()?)),
        tag::CERT_SERIAL => record.cert_serial = Some(text()?),
        tag::VERB => record.verb = Some(text()?),
        tag::RESOURCE => record.resource = Some(text()?),
        tag::QUERY_HASH => {
            record.query_hash = Some(<[u8; 32]>::try_from(value).map_err(|_| bad())?);
        }
        tag::DENY_STAGE => record.deny_stage = Some(text()?),
        tag::DENY_CODE => record.deny_code = Some(text()?),
        tag::HTTP_STATUS => {
            record.http_status = Some(u16::try_from(number()?).map_err(|_| bad())?);
        }
        tag::ROWS_RETURNED => record.rows_returned = number()?,
        tag::ROWS_WITHHELD => record.rows_withheld = number()?,
        tag::BYTES_OUT => record.bytes_out = number()?,
        tag::LATENCY_US => record.latency_us = number()?,
        tag::REVISION => record.revision = Some(number()?),
        tag::ACTION => record.action = Some(text()?),
        tag::ACTOR => record.actor = Some(text()?),
        tag::DETAIL => {
            let json = std::str::from_utf8(value).map_err(|_| bad())?;
            record.detail = Some(AuditDetail::stored(json).map_err(|_| bad())?);
        }
        tag::DECISION => {
            let decision = RecordedDecision::from_bytes(value.to_vec()).map_err(|_| bad())?;
            record.decision = Some(decision);
        }
        tag::WITNESSED => record.witnessed = Some(HistoryHead::from_bytes(value).ok_or_else(bad)?),
        _ => return Err(DecodeError::UnknownField(tag)),
    }
    Ok(())
}

const fn direction_code(direction: Direction) -> u8 {
    match direction {
        Direction::Inbound => 1,
        Direction::Outbound => 2,
        Direction::Admin => 3,
    }
}

fn direction_of([code]: [u8; 1]) -> Option<Direction> {
    Direction::ALL
        .into_iter()
        .find(|one| direction_code(*one) == code)
}

const fn outcome_code(outcome: AuditOutcome) -> u8 {
    match outcome {
        AuditOutcome::Allowed => 1,
        AuditOutcome::Denied => 2,
        AuditOutcome::RateLimited => 3,
        AuditOutcome::Error => 4,
        AuditOutcome::Aborted => 5,
    }
}

fn outcome_of([code]: [u8; 1]) -> Option<AuditOutcome> {
    AuditOutcome::ALL
        .into_iter()
        .find(|one| outcome_code(*one) == code)
}

#[cfg(test)]
mod tests;
