//! An export of the table `federation_peers`: CSV with a header (RFC 4180), a JSON array of objects, or one JSON object a line.
//!
//! Invariant: of each row only the columns that an import needs are taken, by their name in the database or in the gateway's code; an
//! export without one of the columns that must be there, or with one twice, is refused as a whole.

use serde_json::{Map, Value};

/// Columns that are taken: as in the database, as in the gateway's code, and whether an export must have them.
const COLUMNS: [(&str, &str, bool); 6] = [
    ("common_name", "commonName", true),
    ("endpoint_url", "endpointUrl", true),
    ("state", "state", true),
    ("cert_pem", "certPem", true),
    ("cert_serial", "certSerial", false),
    ("client_key_pem", "clientKeyPem", true),
];

/// The rows of an export.
///
/// # Errors
/// What is wrong with it, in a few words that hold nothing of its values.
pub(super) fn rows(text: &str) -> Result<Vec<Value>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        None => Err("it is empty".to_owned()),
        Some('[') => {
            let rows: Vec<Map<String, Value>> =
                serde_json::from_str(text).map_err(|error| not_json(&error))?;
            rows.iter().map(row_of_json).collect()
        }
        Some('{') => serde_json::Deserializer::from_str(text)
            .into_iter::<Map<String, Value>>()
            .map(|row| row_of_json(&row.map_err(|error| not_json(&error))?))
            .collect(),
        Some(_) => rows_of_csv(text),
    }
}

/// Where, but not what: a value may be a key.
fn not_json(error: &serde_json::Error) -> String {
    format!(
        "it is not JSON rows at line {}, column {}",
        error.line(),
        error.column()
    )
}

fn row_of_json(row: &Map<String, Value>) -> Result<Value, String> {
    let mut taken = Map::new();
    for (name, other, needed) in COLUMNS {
        let found = [row.get(name), row.get(other).filter(|_| name != other)];
        match found {
            [Some(_), Some(_)] => return Err(format!("it has `{name}` and `{other}`")),
            [None, None] if needed => return Err(format!("it has no `{name}`")),
            [None, None] => {}
            [Some(value), None] | [None, Some(value)] => match value {
                Value::String(_) | Value::Null => {
                    drop(taken.insert(name.to_owned(), value.clone()))
                }
                _ => return Err(format!("`{name}` is not a text")),
            },
        }
    }
    if taken.get("common_name").is_none_or(Value::is_null) {
        return Err("a row has no `common_name`".to_owned());
    }
    Ok(Value::Object(taken))
}

fn rows_of_csv(text: &str) -> Result<Vec<Value>, String> {
    let mut records = records(text)?.into_iter();
    let header = records.next().ok_or("it is empty")?;
    records
        .enumerate()
        .map(|(at, record)| {
            if record.len() != header.len() {
                return Err(format!(
                    "row {} has {} columns, the header has {}",
                    at.saturating_add(1),
                    record.len(),
                    header.len()
                ));
            }
            let mut row = Map::new();
            for (name, value) in header.iter().zip(record) {
                // PostgreSQL writes null as nothing.
                let value = if value.is_empty() {
                    Value::Null
                } else {
                    Value::String(value)
                };
                if row.insert(name.trim().to_owned(), value).is_some() {
                    return Err(format!("the header has `{}` twice", name.trim()));
                }
            }
            row_of_json(&row)
        })
        .collect()
}

/// The records of a CSV text: fields in quotes may hold line ends, commas and doubled quotes.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let (mut record, mut field): (Vec<String>, String) = (Vec::new(), String::new());
    let (mut quoted, mut was_quoted) = (false, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted => match characters.peek() {
                Some('"') => {
                    characters.next();
                    field.push('"');
                }
                _ => quoted = false,
            },
            _ if quoted => field.push(character),
            '"' if field.is_empty() && !was_quoted => (quoted, was_quoted) = (true, true),
            '"' => {
                return Err("there is a quote in a field that does not begin with one".to_owned());
            }
            ',' => {
                record.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' => {
                record.push(std::mem::take(&mut field));
                was_quoted = false;
                // A line with nothing on it is no row.
                let row = std::mem::take(&mut record);
                if row.len() > 1 || row.iter().any(|only| !only.is_empty()) {
                    records.push(row);
                }
            }
            _ if was_quoted => return Err("there is text behind a field in quotes".to_owned()),
            _ => field.push(character),
        }
    }
    if quoted {
        return Err("a field in quotes does not end".to_owned());
    }
    if !field.is_empty() || was_quoted || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use serde_json::json;

    use super::*;

    const HEADER: &str =
        "id,common_name,endpoint_url,state,cert_pem,cert_serial,client_key_pem,created_at\n";

    #[test]
    fn the_three_forms_say_the_same() {
        let csv = format!(
            "{HEADER}7,work,https://w:8443,active,\"-----BEGIN\nA\"\"B,\n\",0a,a2V5,now\r\n"
        );
        let row = json!({"common_name": "work", "endpoint_url": "https://w:8443", "state": "active",
            "cert_pem": "-----BEGIN\nA\"B,\n", "cert_serial": "0a", "client_key_pem": "a2V5"});
        let camel = json!({"id": 7, "commonName": "work", "endpointUrl": "https://w:8443", "state": "active",
            "certPem": "-----BEGIN\nA\"B,\n", "certSerial": "0a", "clientKeyPem": "a2V5"});
        assert_eq!(rows(&csv).unwrap(), std::slice::from_ref(&row));
        let array = json!([camel]).to_string();
        assert_eq!(rows(&array).unwrap(), std::slice::from_ref(&row));
        let lines = format!("{camel}\n{camel}\n");
        assert_eq!(rows(&lines).unwrap(), [row.clone(), row]);
    }

    #[test]
    fn empty_columns_are_null_and_blank_lines_nothing() {
        let found = rows(&format!("{HEADER}\n7,work,,pending,,,,\n\n")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["endpoint_url"], Value::Null);
    }

    #[test]
    fn what_is_no_export_is_refused_without_its_values() {
        for (text, why) in [
            ("", "empty"),
            (" \n", "empty"),
            ("[{]", "line 1"),
            ("{\"common_name\": \"secret\"}", "no `endpoint_url`"),
            ("common_name\nwork", "no `endpoint_url`"),
            (&format!("{HEADER}7,work\n"), "columns"),
            (&format!("{HEADER}7,\"work\n"), "does not end"),
            (&format!("{HEADER}7,\"work\"x,\n"), "behind"),
            (&format!("{HEADER}7,wo\"rk,\n"), "quote"),
            ("state,state\na,b\n", "twice"),
        ] {
            let refused = rows(text).unwrap_err();
            assert!(refused.contains(why), "{text:?}: {refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
        let both = json!([{"common_name": "a", "commonName": "b"}]).to_string();
        assert!(rows(&both).unwrap_err().contains("and"));
        let odd = json!([{"common_name": 7}]).to_string();
        assert!(rows(&odd).unwrap_err().contains("not a text"));
    }
}
