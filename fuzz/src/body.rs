//! Request bodies: what parses is JSON of the documented members, and nothing that names an identity.

use proxy::message::body::Body;
use serde_json::Value;

pub(crate) fn attack(bytes: &[u8]) {
    let parsed = Body::parse(bytes);
    assert_eq!(parsed, Body::parse(bytes), "the same bytes, the same body");
    let Ok(body) = parsed else { return };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        assert_eq!(body, Body::default());
        return;
    }
    let value: Value = serde_json::from_slice(bytes).expect("what parses is JSON");
    let members = value.as_object().expect("what parses is an object");
    for name in members.keys() {
        assert!(
            ["verb", "resource", "params", "cursor", "limit"].contains(&name.as_str()),
            "unknown member `{name}`"
        );
    }
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    assert_eq!(body.verb.as_deref(), text("verb"));
    assert_eq!(body.resource.as_deref(), text("resource"));
    assert_eq!(body.cursor.as_deref(), text("cursor"));
}
