//! A response as it came off the wire, and what every test wants to know of one.
//!
//! Invariant: nothing is normalised except header names, which are lower case. What is right is
//! judged in `expect.rs` and in the tests.

use serde_json::Value;

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Names in lower case, values as sent, in order.
    pub headers: Vec<(String, String)>,
    /// The body, after any chunked coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The serving side's id of the exchange.
    #[must_use]
    pub fn request_id(&self) -> &str {
        self.header("x-request-id").expect("x-request-id")
    }

    /// `error.code` of the envelope.
    #[must_use]
    pub fn code(&self) -> String {
        text_at(&self.json(), "/error/code").expect("error.code")
    }

    /// `error.details.reason` of the envelope.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        text_at(&self.json(), "/error/details/reason")
    }

    /// `items` of a list.
    #[must_use]
    pub fn items(&self) -> Vec<Value> {
        match self.json().get("items") {
            Some(Value::Array(items)) if self.status == 200 => items.clone(),
            _ => panic!("not a list: {} {}", self.status, self.text()),
        }
    }

    /// The ids of the rows of a list, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.items()
            .iter()
            .map(|row| text_at(row, "/id").expect("id"))
            .collect()
    }

    /// `nextCursor` of a list.
    #[must_use]
    pub fn cursor(&self) -> Option<String> {
        text_at(&self.json(), "/nextCursor")
    }
}

/// The text at a JSON pointer, if there is one.
#[must_use]
pub fn text_at(value: &Value, pointer: &str) -> Option<String> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .map(str::to_owned)
}
