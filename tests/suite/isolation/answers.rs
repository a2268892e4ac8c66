//! What must hold of every answer and every row, whoever asked.

use proptest::test_runner::TestCaseError;
use serde_json::Value;

use crate::support::stream::Answer;
use crate::support::truth::Key;

/// Fails the case unless `condition` holds.
macro_rules! demand {
    ($condition:expr, $($words:tt)*) => {
        if !$condition {
            return Err(TestCaseError::fail(format!($($words)*)));
        }
    };
}

/// A member name that says secret, told by another rule than the product's: without separators and
/// case, one of these stands in it. The generator's only innocent exception is `secretary`.
pub fn says_secret(name: &str) -> bool {
    let flat: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();
    flat != "secretary"
        && [
            "password",
            "passwd",
            "secret",
            "token",
            "apikey",
            "privatekey",
            "credential",
        ]
        .into_iter()
        .chain(["authorization", "cookie"])
        .any(|word| flat.contains(word))
}

pub fn secret_member(value: &Value) -> Option<String> {
    match value {
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            says_secret(name)
                .then(|| name.clone())
                .or_else(|| secret_member(value))
        }),
        Value::Array(values) => values.iter().find_map(secret_member),
        _ => None,
    }
}

pub fn key_of(row: &Value) -> Key {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    (text("createdAt"), text("id"))
}

/// What no answer may hold, whoever asked.
pub fn check_body(answer: &Answer) -> Result<(), TestCaseError> {
    let text = String::from_utf8_lossy(&answer.body);
    demand!(!text.contains("leak-canary"), "a canary: {text:.400}");
    let headers = format!("{:?}", answer.head.headers);
    demand!(!headers.contains("leak-canary"), "a canary: {headers}");
    let body: Value = serde_json::from_str(&text)
        .map_err(|error| TestCaseError::fail(format!("{error}: {text:.400}")))?;
    let secret = secret_member(&body);
    demand!(secret.is_none(), "the member {secret:?} in {text:.400}");
    Ok(())
}

pub fn check_row(resource: &str, row: &Value) -> Result<(), TestCaseError> {
    demand!(row["_source"] == "local", "no source: {row}");
    demand!(
        resource != "tasks" || row.get("labels").is_none(),
        "policy removes labels: {row}"
    );
    Ok(())
}

pub(crate) use demand;
