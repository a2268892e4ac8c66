//! Records of the audit journal: what is read is whole frames in the order of their numbers, a damaged place is never taken for a
//! record, and a record that reads has one meaning.

use std::sync::LazyLock;

use policy::time::UnixMillis;
use proxy::audit::journal::attack::{outcome, read};
use proxy::audit::{AuditDetail, AuditOutcome, AuditRecord, AuditText, Direction, canonical};
use uuid::Uuid;

const FIRST: u64 = 41;

/// What a run may have left: an act, a request and a refusal.
static LEFT: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let record = |n: u64, direction, outcome| {
        let id = Uuid::from_u64_pair(0x0190_0000_0000_7000, 0x8000_0000_0000_0000 | n);
        let request = AuditText::short(&id.to_string());
        AuditRecord::new(
            id,
            UnixMillis(1_767_355_200_000),
            direction,
            outcome,
            request,
        )
    };
    let mut act = record(1, Direction::Admin, AuditOutcome::Allowed);
    act.action = Some(AuditText::fixed("audit.dropped"));
    act.detail = Some(AuditDetail::new().count("requests", 3));
    let mut asked = record(2, Direction::Inbound, AuditOutcome::Allowed);
    asked.rows_returned = 20;
    let mut refused = record(3, Direction::Inbound, AuditOutcome::RateLimited);
    refused.http_status = Some(429);
    let all = [act, asked, refused];
    all.iter().map(canonical::to_bytes).collect()
});

/// The bytes are the number of the first frame (8) and a segment, or, when the first is odd, where (2 bytes) and how (4 bytes) a true
/// segment is changed.
pub(crate) fn attack(bytes: &[u8]) {
    match bytes.split_first() {
        Some((first, change)) if first % 2 == 1 => burst(change),
        Some((_, rest)) => {
            let Some((number, segment)) = rest.split_first_chunk::<8>() else {
                return;
            };
            segment_of(segment, u64::from_le_bytes(*number));
        }
        None => {}
    }
}

fn segment_of(segment: &[u8], first: u64) {
    let found = read(segment, first);
    let mut at = 0;
    for (one, number) in found.iter().zip(first..=u64::MAX) {
        assert_eq!((one.at, one.number), (at, number), "a gap");
        assert!(one.size >= 24 && one.size.is_multiple_of(8), "{one:?}");
        at += one.size;
        assert!(at <= segment.len(), "read past the end");
        let Some((is_outcome, payload)) = &one.frame else {
            continue;
        };
        assert!(payload.len() <= one.size - 24);
        if *is_outcome && let Ok(record) = canonical::decode(payload) {
            let again = canonical::to_bytes(&record);
            let read = canonical::decode(&again).expect("what is written reads back");
            assert_eq!(read, record, "the record reads back as another");
            assert_eq!(canonical::to_bytes(&read), again, "one encoding");
        }
    }
    // A damaged frame is told only in front of a whole one.
    assert!(found.last().is_none_or(|last| last.frame.is_some()));
    assert_eq!(
        found,
        read(segment, first),
        "the same bytes, the same frames"
    );
}

/// Up to 32 bits next to each other are changed, as a disk may do: the checksum finds all of those.
fn burst(change: &[u8]) {
    let mut segment = Vec::new();
    for (payload, number) in LEFT.iter().zip(FIRST..) {
        segment.extend(outcome(number, payload));
    }
    let Some((place, bits)) = change.split_first_chunk::<2>() else {
        return;
    };
    let at = usize::from(u16::from_le_bytes(*place)) % segment.len();
    for (byte, bits) in segment.iter_mut().skip(at).zip(bits.iter().take(4)) {
        *byte ^= bits;
    }
    for one in read(&segment, FIRST) {
        let true_one = usize::try_from(one.number - FIRST).unwrap();
        if let Some((_, payload)) = &one.frame {
            assert_eq!(payload, &LEFT[true_one], "a changed record was read");
        }
    }
}
