//! Heads of requests: a target parses to the route it spells, and ambiguous framing never passes.

use http::{Method, Uri};
use proxy::message::framing::inspect_raw_head;
use proxy::message::target::{BASE, Route};

pub(crate) fn attack(bytes: &[u8]) {
    let sound = inspect_raw_head(bytes).is_ok();
    let lower = bytes.to_ascii_lowercase();
    let count = |name: &[u8]| {
        lower
            .split(|byte| *byte == b'\n')
            .filter(|line| line.starts_with(name))
            .count()
    };
    let (lengths, encodings) = (count(b"content-length:"), count(b"transfer-encoding:"));
    if lengths > 1 || (lengths > 0 && encodings > 0) {
        assert!(!sound, "ambiguous framing passed");
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(uri) = text.parse::<Uri>() else { return };
    if let Ok(route) = Route::parse(&Method::POST, uri.path(), uri.query()) {
        let rest = uri.path().strip_prefix(BASE).expect("only below the base");
        assert_eq!(rest.split('/').next(), Some(route.verb()));
        if let Some(resource) = route.resource() {
            assert_eq!(rest.split('/').nth(1), Some(resource));
        }
        assert_eq!(uri.query(), None);
    }
}
