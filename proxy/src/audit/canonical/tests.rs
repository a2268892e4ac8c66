//! Encoding and decoding are inverse, and nothing that was not encoded decodes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = AuditText> {
    prop::string::string_regex("[ -~é]{0,90}")
        .unwrap()
        .prop_map(|text| AuditText::long(&text))
}

fn kept_number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), 0..1000_u64, 0..=LARGEST]
}

prop_compose! {
    fn texts()(texts in prop::collection::vec(prop::option::of(text()), 9)) -> Vec<Option<AuditText>> { texts }
}

prop_compose! {
    pub(crate) fn records()(
        ids in any::<(u128, Option<u128>, Option<u128>, Option<u128>)>(),
        at in any::<i64>(),
        closed in (0..3_usize, 0..5_usize),
        request_id in text(),
        texts in texts(),
        numbers in prop::collection::vec(kept_number(), 5),
        small in any::<(u32, Option<u16>, Option<[u8; 32]>)>(),
        revision in prop::option::of(kept_number()),
        detail in prop::option::of((text(), kept_number())),
        witnessed in prop::option::of((any::<u128>(), any::<u64>(), any::<[u8; 32]>())),
        decision in prop::option::of(prop::collection::vec(any::<u8>(), 0..=RecordedDecision::MAX_BYTES)),
    ) -> AuditRecord {
        let mut texts = texts.into_iter();
        let mut next = || texts.next().flatten();
        let mut record = AuditRecord::new(
            Uuid::from_u128(ids.0),
            UnixMillis(at),
            Direction::ALL[closed.0],
            AuditOutcome::ALL[closed.1],
            request_id,
        );
        record.peer = ids.1.map(|id| PeerId::new(Uuid::from_u128(id)));
        record.grant = ids.2.map(|id| GrantId::new(Uuid::from_u128(id)));
        record.subject = ids.3.map(|id| SubjectId::new(Uuid::from_u128(id)));
        record.peer_request_id = next();
        record.trace_id = next();
        record.cert_serial = next();
        record.verb = next();
        record.resource = next();
        record.deny_stage = next();
        record.deny_code = next();
        record.action = next();
        record.actor = next();
        record.count = numbers[0];
        record.rows_returned = numbers[1];
        record.rows_withheld = numbers[2];
        record.bytes_out = numbers[3];
        record.latency_us = numbers[4];
        (record.attempt, record.http_status, record.query_hash) = small;
        record.revision = revision;
        record.witnessed = witnessed.map(|(chain, gseq, ghash)| HistoryHead { chain: Uuid::from_u128(chain), gseq, ghash });
        record.decision = decision.map(|bytes| RecordedDecision::from_bytes(bytes).unwrap());
        record.detail = detail.map(|(text, count)| AuditDetail::new().text("why", text.as_str()).count("n", count));
        record
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_record_reads_back_and_has_one_encoding(record in records()) {
        let bytes = to_bytes(&record);
        let back = decode(&bytes).unwrap();
        prop_assert_eq!(&back, &record);
        prop_assert_eq!(to_bytes(&back), bytes);
        prop_assert_eq!(id_of(&to_bytes(&record)), Some(record.id));
    }

    #[test]
    fn two_records_never_have_the_same_bytes(one in records(), other in records()) {
        prop_assert_eq!(one == other, to_bytes(&one) == to_bytes(&other));
    }

    #[test]
    fn a_counted_record_has_the_same_length_for_every_count(record in records(), count in 1..=LARGEST) {
        let first = AuditRecord { count: 1, ..record.clone() };
        let later = AuditRecord { count, ..record };
        prop_assert_eq!(counted_bytes(&first).len(), counted_bytes(&later).len());
        prop_assert_eq!(decode(&counted_bytes(&later)).unwrap(), later);
    }

    #[test]
    fn a_cut_record_does_not_decode(record in records(), cut in any::<prop::sample::Index>()) {
        let bytes = to_bytes(&record);
        let cut = cut.index(bytes.len());
        // A cut between two fields leaves a shorter record or one without what it must have; never the same one.
        prop_assert_ne!(decode(&bytes[..cut]).ok(), Some(record));
    }

    #[test]
    fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(record) = decode(&bytes) {
            prop_assert_eq!(decode(&to_bytes(&record)).unwrap(), record);
        }
    }
}

#[test]
fn numbers_beyond_what_the_store_keeps_are_encoded_as_it_keeps_them() {
    let mut record = decode(&to_bytes(&super::super::fixture::record(1))).unwrap();
    record.bytes_out = u64::MAX;
    assert_eq!(decode(&to_bytes(&record)).unwrap().bytes_out, LARGEST);
}

#[test]
fn later_versions_and_fields_are_named() {
    let bytes = to_bytes(&super::super::fixture::record(1));
    let mut later = bytes.clone();
    later[0] = 2;
    assert_eq!(decode(&later), Err(DecodeError::Version(2)));
    let field = [bytes.clone(), vec![200, 0]].concat();
    assert_eq!(decode(&field), Err(DecodeError::UnknownField(200)));
    let twice = [bytes.clone(), vec![1, 0]].concat();
    assert_eq!(decode(&twice), Err(DecodeError::Order(1)));
    assert_eq!(decode(&bytes[..1]), Err(DecodeError::Short));
}

/// The bytes are part of every hash: they never change for a record that exists.
#[test]
fn the_encoding_is_fixed() {
    let mut record = super::super::fixture::record(3);
    record.http_status = Some(200);
    assert_eq!(
        hex::encode(to_bytes(&record)),
        "010110018bcfe568007000800000000000000302080000000000000000030101040101\
         062430313862636665352d363830302d373030302d383030302d303030303030303030303033\
         0e046c6973741308c80000000000000014080300000000000000"
            .replace(char::is_whitespace, "")
    );
}
