//! `policy diff` and `policy replay`: what a candidate would change.
//!
//! Invariant: nothing is changed. What cannot be told from the log is said with every replay.

use std::collections::BTreeMap;
use std::path::Path;

use http::Method;
use serde_json::{Map, Value, json};

use super::super::Context;
use super::super::arguments::PolicyReplay;
use super::super::failure::CliFailure;
use super::super::grant::print_items;
use super::super::output::{Console, cell};
use super::invalid;
use crate::exit::Exit;
use crate::policy_files;

/// What no replay can tell.
const CANNOT_TELL: [&str; 3] = [
    "rows: what the gateway answered is not kept, so which rows would pass and which members would be removed cannot be told",
    "teams of a user outside the reach of the decision are not kept: where a candidate lets out more teams, it says so for members",
    "grants are taken as they are now, with the scopes they have now",
];

pub(super) async fn diff(
    context: &Context<'_>,
    candidate: &Path,
    exit_code: bool,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let body = json!({ "files": files(candidate)? });
    let admin = context.admin()?;
    let mut answer = admin
        .ask(
            "comparing policies",
            Method::POST,
            "/admin/v1/policy/diff",
            Some(&body),
        )
        .await?;
    let grants = answer.get("grants").and_then(Value::as_array);
    let changed = grants.is_some_and(|grants| !grants.is_empty());
    let mapping = answer.get("mapping_differs") == Some(&Value::Bool(true));
    let compared = answer.get("compared").and_then(Value::as_u64).unwrap_or(0);
    if console.json {
        console.document(&answer)?;
    } else {
        if changed {
            let rows = lines(answer.get_mut("grants").map(Value::take));
            let columns = [
                ("GRANT", "/grant"),
                ("PEER", "/peer"),
                ("USER", "/user"),
                ("CHANGE", "/change"),
            ];
            print_items(console, &columns, &json!({ "items": rows }))?;
        }
        let note = if changed {
            "compared"
        } else {
            "compared, nothing would change"
        };
        console.note(&format!("{compared} grant(s) {note}"))?;
        if mapping {
            console.note("the [mapping] differs: the gateway would be asked in another way")?;
        }
    }
    Ok(ended(exit_code, changed || mapping))
}

pub(super) async fn replay(
    context: &Context<'_>,
    asked: &PolicyReplay,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let files = files(&asked.candidate)?;
    let admin = context.admin()?;
    let mut total = Replayed::default();
    let mut after = Value::Null;
    loop {
        let (name, since) = asked.since.member("since");
        let body = json!({
            "files": files,
            name: since,
            "grant": asked.grant,
            "after": after,
        });
        let page = admin
            .ask(
                "replaying recorded decisions",
                Method::POST,
                "/admin/v1/policy/replay",
                Some(&body),
            )
            .await?;
        after = page.get("next").cloned().unwrap_or(Value::Null);
        total.take(page);
        if after.is_null() {
            break;
        }
    }
    let changed = !total.changed.is_empty();
    if console.json {
        console.document(&total.document())?;
    } else {
        total.print(asked.each, console)?;
    }
    Ok(ended(asked.exit_code, changed))
}

/// With `--exit-code`, a change is told to scripts.
pub(super) const fn ended(exit_code: bool, changed: bool) -> Exit {
    if exit_code && changed {
        Exit::Failed
    } else {
        Exit::Done
    }
}

/// The candidate's files, checked here too, so that problems are told without a running sidecar.
pub(super) fn files(candidate: &Path) -> Result<Value, CliFailure> {
    let loaded = policy_files::load(candidate)
        .and_then(|files| policy_files::parse(&files).map(|_| files))
        .map_err(|problems| invalid(candidate, &problems))?;
    Ok(json!(loaded))
}

/// One row for each change.
fn lines(grants: Option<Value>) -> Vec<Value> {
    let mut rows = Vec::new();
    let Some(Value::Array(grants)) = grants else {
        return rows;
    };
    for grant in grants {
        let changes = grant.get("changes").and_then(Value::as_array);
        for change in changes.into_iter().flatten() {
            let mut row = grant.clone();
            if let Some(row) = row.as_object_mut() {
                row.insert("change".to_owned(), change.clone());
            }
            rows.push(row);
        }
    }
    rows
}

#[derive(Default)]
struct Replayed {
    examined: u64,
    same: u64,
    changed: Vec<Value>,
    not_replayed: BTreeMap<String, u64>,
}

impl Replayed {
    fn take(&mut self, mut page: Value) {
        let number = |key: &str| page.get(key).and_then(Value::as_u64).unwrap_or(0);
        self.examined += number("examined");
        self.same += number("same");
        let reasons = page.get("not_replayed").and_then(Value::as_object);
        for (why, count) in reasons.into_iter().flatten() {
            *self.not_replayed.entry(why.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        if let Some(Value::Array(changed)) = page.get_mut("changed").map(Value::take) {
            self.changed.extend(changed);
        }
    }

    fn document(self) -> Value {
        json!({
            "examined": self.examined,
            "same": self.same,
            "changed": self.changed,
            "not_replayed": self.not_replayed,
            "cannot_tell": CANNOT_TELL,
        })
    }

    fn print(self, each: bool, console: &mut Console<'_>) -> Result<(), CliFailure> {
        let changed = self.changed.len();
        if each {
            let columns = [
                ("AT", "/at"),
                ("REQUEST", "/request_id"),
                ("GRANT", "/grant"),
                ("VERB", "/verb"),
                ("RESOURCE", "/resource"),
                ("CHANGE", "/change"),
            ];
            console.table(&columns, &lines(Some(Value::Array(self.changed))))?;
        } else if changed > 0 {
            kinds(&self.changed, console)?;
        }
        let (examined, same) = (self.examined, self.same);
        console.note(&format!(
            "{examined} record(s) looked at: {changed} would be decided otherwise, {same} the same"
        ))?;
        for (why, count) in &self.not_replayed {
            console.note(&format!("{count} not decided again: {why}"))?;
        }
        for text in CANNOT_TELL {
            console.note(text)?;
        }
        Ok(())
    }
}

/// Changes of one kind together: how many requests, and the last of them.
fn kinds(changed: &[Value], console: &mut Console<'_>) -> Result<(), CliFailure> {
    let mut kinds: BTreeMap<Vec<String>, (u64, String)> = BTreeMap::new();
    for one in changed {
        let text = |key: &str| cell(one.get(key));
        let changes = one.get("changes").and_then(Value::as_array);
        let changes: Vec<&str> = changes
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let kind = vec![
            text("grant"),
            text("verb"),
            text("resource"),
            changes.join("; "),
        ];
        let known = kinds.entry(kind).or_default();
        known.0 += 1;
        known.1 = text("request_id");
    }
    let names = ["grant", "verb", "resource", "change"];
    let rows: Vec<Value> = kinds
        .into_iter()
        .map(|(kind, (count, last))| {
            let mut row: Map<String, Value> = names
                .iter()
                .zip(kind)
                .map(|(name, text)| ((*name).to_owned(), Value::from(text)))
                .collect();
            row.insert("count".to_owned(), count.into());
            row.insert("last".to_owned(), last.into());
            Value::Object(row)
        })
        .collect();
    let columns = [
        ("REQUESTS", "/count"),
        ("GRANT", "/grant"),
        ("VERB", "/verb"),
        ("RESOURCE", "/resource"),
        ("CHANGE", "/change"),
        ("LAST REQUEST", "/last"),
    ];
    Ok(console.table(&columns, &rows)?)
}
