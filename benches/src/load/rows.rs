//! Whether an answer holds what it should.
//!
//! Invariant: an answer is accepted only if it was parsed and counted itself, or is byte for byte equal to
//! one that was. So each answer of a run is known to hold all rows, at the price of a comparison.

use std::collections::HashSet;

use serde_json::Value;

/// What each answer must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// How many rows; `None` leaves the body alone.
    pub rows: Option<usize>,
    /// Each row says `"_source":"local"`.
    pub tagged: bool,
}

/// Why an answer is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// Not JSON.
    #[error("the answer is not JSON")]
    Json,
    /// No array of rows.
    #[error("the answer has neither `items` nor `rows` nor an array at its root")]
    NoRows,
    /// Too few or too many rows.
    #[error("the answer holds {found} rows instead of {expected}")]
    Count {
        /// Rows in the answer.
        found: usize,
        /// Rows it should hold.
        expected: usize,
    },
    /// A row without an id, or two with the same.
    #[error("a row has no id of its own")]
    Identity,
    /// A row that was not tagged with its source.
    #[error("a row does not say `\"_source\":\"local\"`")]
    Untagged,
}

/// Checks the answers of one connection.
pub struct RowCheck {
    expectation: Expectation,
    accepted: Option<Vec<u8>>,
}

impl RowCheck {
    /// A check that has seen nothing yet.
    #[must_use]
    pub const fn new(expectation: Expectation) -> Self {
        Self {
            expectation,
            accepted: None,
        }
    }

    /// Accepts one answer.
    ///
    /// # Errors
    /// [`RowsError`] when it does not hold what it should.
    pub fn accept(&mut self, body: &[u8]) -> Result<(), RowsError> {
        if self.expectation.rows.is_none() || self.accepted.as_deref() == Some(body) {
            return Ok(());
        }
        verify(body, self.expectation)?;
        self.accepted = Some(body.to_vec());
        Ok(())
    }
}

/// Parses an answer and counts its rows.
fn verify(body: &[u8], expectation: Expectation) -> Result<(), RowsError> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| RowsError::Json)?;
    let rows = answer
        .as_array()
        .or_else(|| answer.get("items")?.as_array())
        .or_else(|| answer.get("rows")?.as_array())
        .ok_or(RowsError::NoRows)?;
    if let Some(expected) = expectation.rows.filter(|expected| *expected != rows.len()) {
        return Err(RowsError::Count {
            found: rows.len(),
            expected,
        });
    }
    let ids: HashSet<&str> = rows
        .iter()
        .filter_map(|row| row.get("id")?.as_str())
        .collect();
    if ids.len() != rows.len() {
        return Err(RowsError::Identity);
    }
    let tagged = |row: &Value| row.get("_source").and_then(Value::as_str) == Some("local");
    if expectation.tagged && !rows.iter().all(tagged) {
        return Err(RowsError::Untagged);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: usize, tagged: bool, body: &str) -> Result<(), RowsError> {
        RowCheck::new(Expectation {
            rows: Some(rows),
            tagged,
        })
        .accept(body.as_bytes())
    }

    #[test]
    fn all_rows_are_accepted() {
        for body in [
            r#"{"items":[{"id":"a","_source":"local"},{"id":"b","_source":"local"}]}"#,
            r#"{"count":2,"rows":[{"id":"a"},{"id":"b"}]}"#,
            r#"[{"id":"a"},{"id":"b"}]"#,
        ] {
            assert_eq!(check(2, false, body), Ok(()), "{body}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let count = |found| Err(RowsError::Count { found, expected: 2 });
        for (body, refused) in [
            (r#"{"items":[{"id":"a"}]}"#, count(1)),
            (r#"{"items":[{"id":"a"},{"id":"b"},{"id":"c"}]}"#, count(3)),
            (
                r#"{"items":[{"id":"a"},{"id":"a"}]}"#,
                Err(RowsError::Identity),
            ),
            (
                r#"{"items":[{"id":"a"},{"id":2}]}"#,
                Err(RowsError::Identity),
            ),
            (r#"{"items":[{"id":"a"},{"id":"b"}"#, Err(RowsError::Json)),
            (r#"{"item":{"id":"a"}}"#, Err(RowsError::NoRows)),
        ] {
            assert_eq!(check(2, false, body), refused, "{body}");
        }
        let half = r#"{"items":[{"id":"a","_source":"local"},{"id":"b"}]}"#;
        assert_eq!(check(2, true, half), Err(RowsError::Untagged));
    }

    #[test]
    fn a_changed_answer_is_parsed_again() {
        let mut check = RowCheck::new(Expectation {
            rows: Some(1),
            tagged: false,
        });
        assert_eq!(check.accept(br#"[{"id":"a"}]"#), Ok(()));
        assert_eq!(check.accept(br#"[{"id":"b"}]"#), Ok(()));
        assert!(check.accept(br#"[{"id":"a"},{"id":"b"}]"#).is_err());
    }
}
