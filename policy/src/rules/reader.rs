//! Reading TOML tables by hand, so that every problem of a file is found, each with its place.
//!
//! Invariant: reading never stops at the first problem, and a value of the wrong kind is a problem, never a default.
//! Elsewhere on purpose: what the keys mean (`parse.rs`, `mapping.rs`).

use std::fmt::Display;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;

/// Where something stands: file number and bytes.
pub(crate) type Place = (usize, Range<usize>);

/// A table and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Section<'t> {
    /// Its name, for messages.
    pub(crate) name: &'t str,
    pub(crate) table: &'t DeTable<'t>,
    start: usize,
    end: usize,
}

impl<'t> Section<'t> {
    pub(crate) fn new(name: &'t str, table: &'t DeTable<'t>, span: &Range<usize>) -> Self {
        Self {
            name,
            table,
            start: span.start,
            end: span.end,
        }
    }

    pub(crate) fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Collects the problems of all files.
pub(crate) struct Reader<'a> {
    files: &'a [(&'a str, &'a str)],
    pub(crate) file: usize,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(files: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            files,
            file: 0,
            problems: Vec::new(),
        }
    }

    /// Begins to read a file: its root table, unless it is not TOML. After a syntax error the tables are a guess, and
    /// what is read from a guess would mislead.
    pub(crate) fn open(&mut self, number: usize, text: &'a str) -> Option<Spanned<DeTable<'a>>> {
        self.file = number;
        let (root, errors) = DeTable::parse_recoverable(text);
        let broken = !errors.is_empty();
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            self.problem(span, format!("not TOML: {}", error.message()), "");
        }
        (!broken).then_some(root)
    }

    /// File, line and character of a place, the last two counted from 1.
    pub(crate) fn locate(&self, (file, span): &Place) -> (&'a str, usize, usize) {
        let (name, text) = self.files.get(*file).copied().unwrap_or(("", ""));
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
        (name, before.matches('\n').count() + 1, column)
    }

    /// The problems found, sorted by file and place.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort();
        self.problems.dedup();
        self.problems
    }

    /// Reports a problem in the file being read.
    pub(crate) fn problem(
        &mut self,
        span: Range<usize>,
        message: impl Display,
        hint: impl Display,
    ) {
        self.problem_at((self.file, span), message, hint);
    }

    /// Reports a problem in any file.
    pub(crate) fn problem_at(&mut self, place: Place, message: impl Display, hint: impl Display) {
        let (file, line, column) = self.locate(&place);
        self.problems.push(Problem {
            file: file.to_owned(),
            line,
            column,
            message: message.to_string(),
            hint: hint.to_string(),
        });
    }

    /// Reports every key of the section that is not in `known`.
    pub(crate) fn only_keys(&mut self, section: Section<'_>, known: &[&str]) {
        for key in section.table.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let message = format!("unknown key {name:?} in {}", section.name);
                self.problem(
                    key.span(),
                    message,
                    format!("known here: {}", known.join(", ")),
                );
            }
        }
    }

    fn wrong_kind(&mut self, section: Section<'_>, key: &str, span: Range<usize>, wanted: &str) {
        self.problem(
            span,
            format!("{key} in {} must be {wanted}", section.name),
            "",
        );
    }

    /// Reports that a key must be there.
    pub(crate) fn missing(&mut self, section: Section<'_>, key: &str) {
        self.problem(
            section.span(),
            format!("{} has no {key}", section.name),
            "add it",
        );
    }

    /// A string, and where it stands.
    pub(crate) fn string<'t>(
        &mut self,
        section: Section<'t>,
        key: &str,
    ) -> Option<(&'t str, Range<usize>)> {
        let value = section.table.get(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_kind(section, key, value.span(), "a string");
        }
        Some((text?, value.span()))
    }

    /// A string that is parsed on the spot; a parse error is a problem at its place.
    pub(crate) fn parsed<T, E: Display>(
        &mut self,
        section: Section<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, span) = self.string(section, key)?;
        parse(text)
            .map_err(|error| self.problem(span, format!("{key} in {}: {error}", section.name), ""))
            .ok()
    }

    /// As [`Reader::parsed`], where the key must be there.
    pub(crate) fn required<T, E: Display>(
        &mut self,
        section: Section<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        if !section.table.contains_key(key) {
            self.missing(section, key);
        }
        self.parsed(section, key, parse)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, section: Section<'_>, key: &str) -> Option<bool> {
        let value = section.table.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_kind(section, key, value.span(), "true or false");
        }
        flag
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn integer(
        &mut self,
        section: Section<'_>,
        key: &str,
        least: u64,
        most: u64,
    ) -> Option<u64> {
        let value = section.table.get(key)?;
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|digits| u64::from_str_radix(digits.as_str(), digits.radix()).ok())
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong_kind(
                section,
                key,
                value.span(),
                &format!("a whole number from {least} to {most}"),
            );
        }
        number
    }

    /// A list of strings without doubles, each parsed; entries that do not parse are problems and left out.
    pub(crate) fn list<T: PartialEq, E: Display>(
        &mut self,
        section: Section<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<(T, Range<usize>)>> {
        let value = section.table.get(key)?;
        let Some(entries) = value.get_ref().as_array() else {
            self.wrong_kind(section, key, value.span(), "a list of strings");
            return None;
        };
        let mut found: Vec<(T, Range<usize>)> = Vec::new();
        for entry in entries.iter() {
            let Some(text) = entry.get_ref().as_str() else {
                self.wrong_kind(section, key, entry.span(), "a list of strings");
                continue;
            };
            match parse(text) {
                Ok(item) if found.iter().any(|(known, _)| *known == item) => {
                    self.problem(
                        entry.span(),
                        format!("{text:?} is named twice"),
                        "remove one",
                    );
                }
                Ok(item) => found.push((item, entry.span())),
                Err(error) => self.problem(entry.span(), format!("{text:?}: {error}"), ""),
            }
        }
        Some(found)
    }

    /// A table inside the section.
    pub(crate) fn table<'t>(
        &mut self,
        section: Section<'t>,
        key: &'t str,
        name: &'t str,
    ) -> Option<Section<'t>> {
        let (key, value) = section.table.get_key_value(key)?;
        self.as_table(name, key.span(), value)
    }

    /// The tables of an array of tables, `[[key]]`.
    pub(crate) fn tables<'t>(
        &mut self,
        section: Section<'t>,
        key: &str,
        name: &'t str,
    ) -> Vec<Section<'t>> {
        let Some((key, value)) = section.table.get_key_value(key) else {
            return Vec::new();
        };
        let Some(entries) = value.get_ref().as_array() else {
            let name: &str = key.get_ref();
            self.problem(
                key.span(),
                format!("{name} must be a list of tables"),
                format!("write [[{name}]]"),
            );
            return Vec::new();
        };
        entries
            .iter()
            .filter_map(|entry| self.as_table(name, key.span(), entry))
            .collect()
    }

    /// The value as a table; anything else is a problem.
    pub(crate) fn as_table<'t>(
        &mut self,
        name: &'t str,
        key: Range<usize>,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<Section<'t>> {
        let Some(table) = value.get_ref().as_table() else {
            self.problem(value.span(), format!("{name} must be a table"), "");
            return None;
        };
        // A table that is only implied by a header below it has no span of its own.
        let span = if value.span().is_empty() {
            key
        } else {
            value.span()
        };
        Some(Section::new(name, table, &span))
    }
}

/// A member or parameter name.
pub(crate) fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
        return Err("a name has 1 to 128 bytes and no control characters");
    }
    Ok(text.to_owned())
}
