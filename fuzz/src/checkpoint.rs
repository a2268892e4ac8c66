//! What a peer says of its record of a grant: the header of an answer, and the file of `audit export --grant`.
//!
//! What must hold: a header that parses has one spelling; a file is read to its end whatever is in it, and without the key nothing
//! is taken for what was exported.

use proxy::audit::checkpoint::CheckpointVerifier;
use proxy::audit::history::CheckpointHeader;
use proxy::audit::history::export::{read, read_head};
use proxy::audit::history::reconcile::{Own, reconcile};

pub fn attack(bytes: &[u8]) {
    if let Some(header) = CheckpointHeader::parse(bytes) {
        assert_eq!(header.value().as_bytes(), bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().map(str::to_owned);
    let Some(Ok(head)) = lines.next().map(|first| read_head(&first)) else {
        return;
    };
    let key = CheckpointVerifier::from_bytes([7; 32]);
    let export = read(head, lines, &key);
    assert!(!export.faults.is_empty());
    let done = reconcile(&export, &Own::default());
    // Nothing of a file is left out: we asked nothing.
    let accounted = done.findings.len() >= export.faults.len() + export.records.len();
    assert!(accounted || done.recent > 0, "{done:?}");
}
