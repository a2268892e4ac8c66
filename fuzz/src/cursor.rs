//! Cursors: only the very text that was sealed opens, and only for what it was sealed for.

use std::sync::LazyLock;

use certs::seal::{CursorKey, PageSealer};

const BOUND: &[u8] = b"grant, resource, filter, revision";
const CONTENT: &[u8] = b"\x01\x142026-01-01T00:00:00Zrow-1";

static SEALED: LazyLock<(PageSealer, String)> = LazyLock::new(|| {
    let key = CursorKey::from_bytes(3, &[7; 32]).unwrap();
    let before = CursorKey::from_bytes(2, &[8; 32]).unwrap();
    let sealer = PageSealer::new(&key, Some(&before)).unwrap();
    let text = sealer.seal(CONTENT, BOUND).unwrap();
    (sealer, text)
});

/// The bytes are a cursor, or, with an odd first byte, changes to a true one.
pub(crate) fn attack(bytes: &[u8]) {
    let (sealer, sealed) = &*SEALED;
    let mut text = bytes.to_vec();
    if let Some((first, changes)) = bytes.split_first()
        && first % 2 == 1
    {
        let mut changed = sealed.clone().into_bytes();
        for (byte, change) in changed.iter_mut().zip(changes) {
            *byte ^= change;
        }
        text = changed;
    }
    let Ok(text) = std::str::from_utf8(&text) else {
        return;
    };
    let opened = sealer.open(text, BOUND);
    if text == sealed {
        assert_eq!(opened.expect("the true cursor opens"), CONTENT);
    } else {
        assert!(opened.is_err(), "a cursor that was never sealed opened");
    }
    assert!(sealer.open(text, b"something else").is_err());
}
