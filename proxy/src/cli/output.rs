//! What a command prints: data on standard output, notes on standard error.
//!
//! Invariant: no colour codes, ever, and no control character that came from elsewhere: rows and names are other
//! people's. With `--json` standard output holds JSON only.

use std::fmt::Write as _;
use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;

/// Longest cell, characters; longer ones are cut with `...`.
const CELL: usize = 80;

/// Where a command prints.
pub(super) struct Console<'w> {
    /// Whether data is JSON.
    pub(super) json: bool,
    out: &'w mut dyn Write,
    notes: &'w mut dyn Write,
}

impl<'w> Console<'w> {
    pub(super) fn new(json: bool, out: &'w mut dyn Write, notes: &'w mut dyn Write) -> Self {
        Self { json, out, notes }
    }

    /// Where data goes, for what prints by itself.
    pub(super) fn out(&mut self) -> &mut dyn Write {
        self.out
    }

    /// One JSON document.
    pub(super) fn document(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value:#}")
    }

    /// One JSON line.
    pub(super) fn json_line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")?;
        self.out.flush()
    }

    /// One line as it is; the caller vouches for its characters.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// A table of `rows`, each cell by the pointer (RFC 6901) of its column.
    pub(super) fn table(&mut self, columns: &[(&str, &str)], rows: &[Value]) -> io::Result<()> {
        let cells = |row: &Value| {
            columns
                .iter()
                .map(|(_, pointer)| cell(row.pointer(pointer)))
                .collect()
        };
        let header = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        self.grid(header, rows.iter().map(cells).collect())
    }

    /// A table of given cells, which are plain already.
    pub(super) fn grid(&mut self, header: Vec<String>, rows: Vec<Vec<String>>) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(header);
        for row in rows {
            table.add_row(row);
        }
        for line in table.lines() {
            writeln!(
                self.out,
                "{}",
                line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end())
            )?;
        }
        Ok(())
    }

    /// The members of one object, a line each.
    pub(super) fn members(&mut self, fields: &[(&str, &str)], value: &Value) -> io::Result<()> {
        let width = fields
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or_default();
        for (name, pointer) in fields {
            if let Some(found) = value.pointer(pointer).filter(|found| !found.is_null()) {
                writeln!(self.out, "{name:width$}  {}", whole_cell(Some(found)))?;
            }
        }
        Ok(())
    }

    /// A remark for the person at the terminal.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.notes, "{}", plain(text))
    }
}

/// A value as a cell: bounded, on one line.
pub(super) fn cell(value: Option<&Value>) -> String {
    let text = whole_cell(value);
    if text.chars().count() <= CELL {
        return text;
    }
    let mut short: String = text.chars().take(CELL.saturating_sub(3)).collect();
    short.push_str("...");
    short
}

fn whole_cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => plain(text),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => items
            .iter()
            .map(|item| whole_cell(Some(item)))
            .collect::<Vec<_>>()
            .join(", "),
        Some(other) => plain(&other.to_string()),
    }
}

/// The text without characters that steer a terminal or hide.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let steers = c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}' | '\u{feff}');
        match c {
            '\n' => out.push_str("\\n"),
            // Writing to a String cannot fail.
            _ if steers => _ = write!(out, "{}", c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn printed(print: impl FnOnce(&mut Console<'_>) -> io::Result<()>) -> String {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        print(&mut Console::new(false, &mut out, &mut notes)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_are_plain_text_whatever_the_rows_hold() {
        let rows = [
            json!({"id": "a", "t": "x\u{1b}[2J\ny"}),
            json!({"id": "b", "t": "z".repeat(200)}),
        ];
        let text = printed(|console| {
            console.table(&[("ID", "/id"), ("TITLE", "/t"), ("NONE", "/n")], &rows)
        });
        assert!(!text.contains('\u{1b}'));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("a ") && line.contains("x\\u{1b}[2J\\ny")),
            "{text}"
        );
        assert!(text.contains(&format!("{}...", "z".repeat(77))));
    }

    #[test]
    fn members_leave_out_what_is_absent() {
        let text = printed(|console| {
            console.members(
                &[("a", "/a"), ("longer", "/b/c"), ("gone", "/x")],
                &json!({"a": 1, "b": {"c": ["x", "y"]}}),
            )
        });
        assert_eq!(text, "a       1\nlonger  x, y\n");
    }
}
