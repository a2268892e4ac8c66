//! `audit archive`: moving old rows out of the database now.
//!
//! Invariant: the sidecar moves them, some files at a time; ending the command ends at the file under way.

use http::Method;
use serde_json::{Value, json};

use super::super::Context;
use super::super::arguments::AuditArchive;
use super::super::failure::CliFailure;
use super::super::output::Console;

const COLUMNS: [(&str, &str); 5] = [
    ("FILE", "/file"),
    ("ROWS", "/rows"),
    ("FROM", "/earliest"),
    ("TO", "/latest"),
    ("BYTES", "/bytes"),
];

pub(super) async fn archive(
    context: &Context<'_>,
    asked: &AuditArchive,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let admin = context.admin()?;
    let mut body = json!({ "before": asked.before, "older_than_s": asked.older_than });
    let mut files: Vec<Value> = Vec::new();
    let before = loop {
        let mut moved = admin
            .ask(
                "moving audit rows into the archive",
                Method::POST,
                "/admin/v1/audit/archive",
                Some(&body),
            )
            .await?;
        if let Some(Value::Array(made)) = moved.get_mut("files").map(Value::take) {
            files.extend(made);
        }
        let before = moved.get("before").cloned().unwrap_or(Value::Null);
        if moved.get("more") != Some(&Value::Bool(true)) {
            break before;
        }
        // What was asked for at the beginning: age goes on while rows are moved.
        body = json!({ "before": before });
    };
    if console.json {
        return Ok(console.document(&json!({ "before": before, "files": files }))?);
    }
    let rows: u64 = files
        .iter()
        .filter_map(|file| file.get("rows").and_then(Value::as_u64))
        .sum();
    if files.is_empty() {
        console.note("no row is that old")?;
        return Ok(());
    }
    console.table(&COLUMNS, &files)?;
    console.note(&format!("{rows} row(s) are in the archive now"))?;
    Ok(())
}
