//! Sealed values open for whom they were sealed, and for nobody and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::cursor::{CURSOR_MAX_CHARS, CursorError};
use super::*;

fn sealer(byte: u8) -> Sealer {
    let secret = SealingSecret::from_bytes(Zeroizing::new(vec![byte; 32])).unwrap();
    Sealer::new(secret).unwrap()
}

fn purposes() -> impl Strategy<Value = SealPurpose> {
    prop::sample::select(SealPurpose::ALL.to_vec())
}

proptest! {
    #[test]
    fn round_trip(purpose in purposes(), row in ".{0,40}", text in prop::collection::vec(any::<u8>(), 0..300)) {
        let sealer = sealer(1);
        let sealed = sealer.seal(purpose, &row, &text).unwrap();
        prop_assert_eq!(&*sealer.unseal(purpose, &row, &sealed).unwrap(), &text);
        // Never the same bytes twice.
        prop_assert_ne!(sealer.seal(purpose, &row, &text).unwrap(), sealed);
    }

    #[test]
    fn any_change_is_noticed(text in prop::collection::vec(any::<u8>(), 0..60), at: prop::sample::Index, bit in 0u8..8) {
        let sealer = sealer(1);
        let mut sealed = sealer.seal(SealPurpose::CaKey, "row", &text).unwrap();
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        let expected = match at {
            0..3 => SealError::Malformed,
            3 => SealError::UnknownVersion { version: sealed[3] },
            4..12 => SealError::WrongSecret,
            _ => SealError::Tampered,
        };
        prop_assert_eq!(sealer.unseal(SealPurpose::CaKey, "row", &sealed).err(), Some(expected));
    }

    #[test]
    fn any_cut_or_noise_is_noticed(text in prop::collection::vec(any::<u8>(), 0..60), cut: prop::sample::Index, noise in prop::collection::vec(any::<u8>(), 0..80)) {
        let sealer = sealer(1);
        let sealed = sealer.seal(SealPurpose::CaKey, "row", &text).unwrap();
        let cut = &sealed[..cut.index(sealed.len())];
        prop_assert!(sealer.unseal(SealPurpose::CaKey, "row", cut).is_err());
        prop_assert!(sealer.unseal(SealPurpose::CaKey, "row", &noise).is_err());
    }

    #[test]
    fn another_row_or_purpose_does_not_open(a in purposes(), b in purposes(), row in "[a-z\0-]{0,8}", other in "[a-z\0-]{0,8}") {
        prop_assume!((a, &row) != (b, &other));
        let sealer = sealer(1);
        let sealed = sealer.seal(a, &row, b"key").unwrap();
        prop_assert_eq!(sealer.unseal(b, &other, &sealed).err(), Some(SealError::Tampered));
    }

    #[test]
    fn cursors_round_trip_and_are_bound(content in prop::collection::vec(any::<u8>(), 0..200), bound in ".{0,30}", other in ".{0,30}") {
        let pages = PageSealer::new(&CursorKey::from_bytes(1, &[1; 32]).unwrap(), None).unwrap();
        let cursor = pages.seal(&content, bound.as_bytes()).unwrap();
        prop_assert!(cursor.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        prop_assert_eq!(pages.open(&cursor, bound.as_bytes()).unwrap(), content);
        prop_assume!(bound != other);
        prop_assert_eq!(pages.open(&cursor, other.as_bytes()), Err(CursorError::Invalid));
    }

    #[test]
    fn a_changed_cursor_does_not_open(at: prop::sample::Index, with in "[A-Za-z0-9_=.-]") {
        let pages = PageSealer::new(&CursorKey::from_bytes(1, &[1; 32]).unwrap(), None).unwrap();
        let cursor = pages.seal(b"position", b"grant").unwrap();
        let at = at.index(cursor.len());
        let mut changed = cursor.clone();
        changed.replace_range(at..=at, &with);
        prop_assume!(changed != cursor);
        prop_assert_eq!(pages.open(&changed, b"grant"), Err(CursorError::Invalid));
    }
}

#[test]
fn the_wrong_secret_is_told_from_tampering() {
    let sealed = sealer(1)
        .seal(SealPurpose::ServerKey, "row", b"key")
        .unwrap();
    let opened = sealer(2).unseal(SealPurpose::ServerKey, "row", &sealed);
    assert_eq!(opened.err(), Some(SealError::WrongSecret));
    assert_ne!(sealer(1).key_id(), sealer(2).key_id());
}

#[test]
fn while_the_secret_is_changed_both_open_and_the_next_seals() {
    let (sealer, other) = (sealer(1), sealer(3));
    let next = self::sealer(2);
    let (purpose, row) = (SealPurpose::CredentialKey, "row");
    let old = sealer.seal(purpose, row, b"key").unwrap();
    assert_eq!(sealer.take(&self::sealer(1)), Err(ChangeError::Same));
    let handed_over = sealer.hand_over(&next).unwrap();
    sealer.take(&next).unwrap();
    assert_eq!(sealer.take(&other), Err(ChangeError::UnderWay));
    assert_eq!(sealer.key_id(), next.key_id());
    assert_eq!(sealer.former_key_id(), sealed_with(&old).ok());
    let new = sealer.reseal(purpose, row, &old).unwrap();
    assert_eq!(sealed_with(&new), Ok(next.key_id()));
    for sealed in [&old, &new] {
        assert_eq!(
            sealer.unseal(purpose, row, sealed).unwrap().as_slice(),
            b"key"
        );
    }
    assert!(sealer.reseal(purpose, "other row", &old).is_err());
    // Started again with the next one, the one before comes from where it was handed over.
    let again = self::sealer(2);
    assert_eq!(
        again.unseal(purpose, row, &old).err(),
        Some(SealError::WrongSecret)
    );
    let former = sealed_with(&old).unwrap();
    assert!(again.remember(&other.key_id(), &handed_over).is_err());
    assert!(other.remember(&former, &handed_over).is_err());
    again.remember(&former, &handed_over).unwrap();
    assert_eq!(again.unseal(purpose, row, &old).unwrap().as_slice(), b"key");
    for sealer in [sealer, again] {
        sealer.forget_former();
        assert_eq!(
            sealer.unseal(purpose, row, &old).err(),
            Some(SealError::WrongSecret)
        );
        assert_eq!(
            sealer.unseal(purpose, row, &new).unwrap().as_slice(),
            b"key"
        );
        assert_eq!(sealer.former_key_id(), None);
    }
}

/// The format is a promise to every store out there: what was sealed once opens for ever.
#[test]
fn the_format_does_not_drift() {
    let sealed = hex::decode(KNOWN).unwrap();
    let opened = sealer(7).unseal(SealPurpose::CredentialKey, "row-1", &sealed);
    assert_eq!(opened.unwrap().as_slice(), b"known plaintext");
}
/// Made with another implementation of HKDF and AES-GCM, nonce 00 01 .. 0b.
const KNOWN: &str = concat!(
    "4d465301fd5b9a25a64549a6000102030405060708090a0b",
    "4794401eb470758b305484dfe329f19f9466ed10cbe5d812500717436d656b"
);

#[test]
fn two_generations_of_cursor_keys_open_and_no_third() {
    let keys = [1, 2, 3].map(|generation| CursorKey::generate(generation).unwrap());
    let old = PageSealer::new(&keys[0], None).unwrap();
    let cursor = old.seal(b"position", b"grant").unwrap();
    let next = PageSealer::new(&keys[1], Some(&keys[0])).unwrap();
    assert_eq!(next.open(&cursor, b"grant").unwrap(), b"position");
    let last = PageSealer::new(&keys[2], Some(&keys[1])).unwrap();
    assert_eq!(last.open(&cursor, b"grant"), Err(CursorError::Invalid));
    // The same number over another key is another key.
    let impostor = PageSealer::new(&CursorKey::generate(1).unwrap(), None).unwrap();
    assert_eq!(impostor.open(&cursor, b"grant"), Err(CursorError::Invalid));
    let stored = CursorKey::from_bytes(1, keys[0].as_bytes()).unwrap();
    let restarted = PageSealer::new(&stored, None).unwrap();
    assert_eq!(restarted.open(&cursor, b"grant").unwrap(), b"position");
    assert!(CursorKey::from_bytes(1, &[0; 31]).is_err());
}

#[test]
fn a_cursor_stays_within_its_bound_or_is_not_made() {
    let pages = PageSealer::new(&CursorKey::generate(1).unwrap(), None).unwrap();
    let room = CURSOR_MAX_CHARS / 4 * 3 - 4 - 12 - 16;
    let full = pages.seal(&vec![0; room], b"").unwrap();
    assert_eq!(full.len(), CURSOR_MAX_CHARS);
    assert_eq!(pages.open(&full, b"").unwrap().len(), room);
    assert_eq!(
        pages.seal(&vec![0; room + 1], b""),
        Err(CursorError::TooLong)
    );
    assert_eq!(
        pages.open(&format!("{full}A"), b""),
        Err(CursorError::Invalid)
    );
}

#[test]
fn a_secret_file_must_be_private_and_long_enough() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let write = |content: &[u8], mode: u32| {
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        SealingSecret::from_file(&path)
    };
    let text = "0123456789abcdef0123456789abcdef";
    let plain = write(text.as_bytes(), 0o600).unwrap();
    let with_line_end = write(format!("{text}\r\n").as_bytes(), 0o440).unwrap();
    assert_eq!(plain.as_bytes(), with_line_end.as_bytes());
    assert_eq!(plain.as_bytes(), text.as_bytes());
    // Binary bytes are taken as they are.
    let binary = [&[0xff; 31][..], b"\n"].concat();
    assert_eq!(write(&binary, 0o400).unwrap().as_bytes(), binary);

    for mode in [0o644, 0o604, 0o620, 0o602, 0o601] {
        let refused = write(text.as_bytes(), mode);
        assert!(matches!(refused, Err(SecretError::TooOpen { mode: m, .. }) if m == mode));
    }
    let short = write(b"short\n", 0o600);
    assert!(matches!(short, Err(SecretError::TooShort { length: 5 })));
    let long = write(&[b'a'; 5000], 0o600);
    assert!(matches!(long, Err(SecretError::TooLong)));
    let missing = SealingSecret::from_file(&directory.path().join("missing"));
    assert!(matches!(missing, Err(SecretError::Unreadable { .. })));
    let not_a_file = SealingSecret::from_file(directory.path());
    assert!(matches!(not_a_file, Err(SecretError::NotAFile { .. })));
    let unset = SealingSecret::from_env("MOSAIC_FEDERATION_TEST_UNSET_VARIABLE");
    assert!(matches!(unset, Err(SecretError::NoVariable { .. })));
    assert_eq!(format!("{plain:?}"), "SealingSecret(redacted)");
}
