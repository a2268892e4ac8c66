//! Which rules the cases hold in place: each is taken out in turn, and some case must then fail.
//!
//! Invariant: a rule is what a file says, read off its tables, so a key added to the format is covered or named like
//! every other. A rule without which nothing is different is no rule; one that cannot be taken out alone is left out.
//! Elsewhere on purpose: `[mapping]` is left out, since a case asks no gateway (`gateway check` does), and what is not
//! about questions, since a case is one.

use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::PolicyCase;
use crate::rules::reader::Reader;
use crate::rules::{Problem, RuleSet};

/// One rule of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleEntry {
    /// The file it is in.
    pub file: String,
    /// Its line.
    pub line: usize,
    /// As it is written: `ceiling.resources: tasks`, `peers.home.include_personal = false`.
    pub rule: String,
    /// The name of a case that fails without it.
    pub covered_by: Option<String>,
}

/// All rules, in the order of files and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The rules.
    pub entries: Vec<RuleEntry>,
}

impl Coverage {
    /// How many rules some case holds in place.
    #[must_use]
    pub fn covered(&self) -> usize {
        let covered = self.entries.iter().filter(|one| one.covered_by.is_some());
        covered.count()
    }

    /// The same in whole percent, rounded down; 100 when there are no rules.
    #[must_use]
    pub fn percent(&self) -> usize {
        (self.covered() * 100)
            .checked_div(self.entries.len())
            .unwrap_or(100)
    }
}

/// Measures which rules of `files` are held in place by `cases`. A case that fails anyway holds nothing.
///
/// # Errors
/// The problems of the files, as [`RuleSet::parse`].
pub fn coverage(files: &[(&str, &str)], cases: &[PolicyCase]) -> Result<Coverage, Vec<Problem>> {
    let whole = Arc::new(RuleSet::parse(files)?);
    let passing: Vec<_> = cases
        .iter()
        .filter(|case| case.run(&whole).passes())
        .collect();
    let mut entries = Vec::new();
    for found in places(files) {
        let Some(without) = found.without(files) else {
            continue;
        };
        if without.hash() == whole.hash() {
            continue;
        }
        let without = Arc::new(without);
        let holder = passing.iter().find(|case| !case.run(&without).passes());
        entries.push(RuleEntry {
            file: found.file,
            line: found.line,
            rule: found.rule,
            covered_by: holder.map(|case| case.name.clone()),
        });
    }
    Ok(Coverage { entries })
}

/// Where a rule stands.
struct RulePlace {
    number: usize,
    file: String,
    line: usize,
    path: Vec<String>,
    /// Position in the list at `path`; the whole value without.
    element: Option<usize>,
    rule: String,
}

impl RulePlace {
    /// The rules without this one; `None` where that would be no policy.
    fn without(&self, files: &[(&str, &str)]) -> Option<RuleSet> {
        let (_, text) = files.get(self.number)?;
        let mut root: toml::Table = text.parse().ok()?;
        let (last, above) = self.path.split_last()?;
        let table = above.iter().try_fold(&mut root, |table, key| {
            table.get_mut(key).and_then(toml::Value::as_table_mut)
        })?;
        match self.element {
            None => drop(table.remove(last)?),
            Some(at) => {
                let list = table.get_mut(last)?.as_array_mut()?;
                if at >= list.len() {
                    return None;
                }
                list.remove(at);
            }
        }
        let text = root.to_string();
        let changed: Vec<(&str, &str)> = files
            .iter()
            .enumerate()
            .map(|(number, (name, whole))| {
                let text = if number == self.number { &text } else { *whole };
                (*name, text)
            })
            .collect();
        RuleSet::parse(&changed).ok()
    }
}

/// Every rule of the files, in order.
fn places(files: &[(&str, &str)]) -> Vec<RulePlace> {
    let mut reader = Reader::new(files);
    let mut found = Vec::new();
    for (number, (_, text)) in files.iter().enumerate() {
        let Some(root) = reader.open(number, text) else {
            continue;
        };
        let mut walk = Walk {
            reader: &reader,
            number,
            found: &mut found,
        };
        walk.table(&mut Vec::new(), root.get_ref());
    }
    found.sort_by_key(|place| (place.number, place.line));
    found
}

struct Walk<'w, 'a> {
    reader: &'w Reader<'a>,
    number: usize,
    found: &'w mut Vec<RulePlace>,
}

impl Walk<'_, '_> {
    fn table(&mut self, path: &mut Vec<String>, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            if path.is_empty() && matches!(name, "schema" | "mapping") {
                continue;
            }
            if name == "suspend_on_renewal_conflict" {
                continue;
            }
            path.push(name.to_owned());
            match value.get_ref() {
                DeValue::Table(below) => self.table(path, below),
                DeValue::Array(entries) if !entries.is_empty() => {
                    for (at, entry) in entries.iter().enumerate() {
                        let shown = format!(": {}", shown(entry.get_ref()));
                        self.rule(path, Some(at), entry.span(), &shown);
                    }
                }
                other => {
                    let shown = format!(" = {}", shown(other));
                    self.rule(path, None, value.span(), &shown);
                }
            }
            path.pop();
        }
    }

    fn rule(&mut self, path: &[String], element: Option<usize>, span: Range<usize>, shown: &str) {
        let (file, line, _) = self.reader.locate(&(self.number, span));
        self.found.push(RulePlace {
            number: self.number,
            file: file.to_owned(),
            line,
            path: path.to_vec(),
            element,
            rule: format!("{}{shown}", path.join(".")),
        });
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Integer(digits) => digits.as_str().to_owned(),
        DeValue::Float(digits) => digits.as_str().to_owned(),
        DeValue::Datetime(instant) => instant.to_string(),
        DeValue::Array(_) => "[]".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
