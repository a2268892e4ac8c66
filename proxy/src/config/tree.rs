//! File, environment and flags become one tree of values, each with its source.
//!
//! Invariant: later sources win key by key (file, then environment, then flags); whatever does not fit the
//! schema is a problem and is left out, so that one run reports everything that is wrong.
//! Relations between values are checked in `validate.rs`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{ConfigProblem, Source, nearest};
use super::schema::{Kind, kind_of};

/// Prefix of the environment variables that set keys.
pub(crate) const ENV_PREFIX: &str = "MOSAIC_FEDERATION_";

/// Variable that names the settings file; read by the command line, not a key.
pub(crate) const ENV_FILE: &str = "MOSAIC_FEDERATION_CONFIG";

/// The merged values, their sources and what was wrong on the way.
pub(crate) struct Tree<'s> {
    schema: &'s Value,
    pub(crate) values: Map<String, Value>,
    pub(crate) sources: BTreeMap<String, Source>,
    pub(crate) problems: Vec<ConfigProblem>,
}

impl<'s> Tree<'s> {
    pub(crate) fn new(schema: &'s Value) -> Self {
        Self {
            schema,
            values: Map::new(),
            sources: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Reads the text of a settings file.
    pub(crate) fn read_file(&mut self, path: &Path, text: &str) {
        let locate = |span: Range<usize>| position(path, text, span.start);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let source = locate(error.span().unwrap_or_default());
            self.add_problem(source, "", error.message().to_owned(), None);
        }
        self.read_table(self.schema, "", table.get_ref(), &locate);
    }

    /// Reads the variables that carry the prefix; others are none of our business.
    pub(crate) fn read_environment(&mut self, variables: &[(String, String)]) {
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            if name == ENV_FILE || is_service_link(rest) {
                continue;
            }
            let key = rest.to_ascii_lowercase().replace("__", ".");
            self.read_text(&key, value, &Source::Environment(name.clone()));
        }
    }

    /// Reads one `key = value` given as text, from a flag or a variable.
    pub(crate) fn read_text(&mut self, key: &str, text: &str, source: &Source) {
        let Some(node) = self.node_at(key) else {
            let hint = self.nearest_key(key);
            self.add_problem(source.clone(), key, "unknown key".to_owned(), hint);
            return;
        };
        let literal = match kind_of(node) {
            Some(Kind::Text | Kind::Choice(_)) => None,
            Some(Kind::TextList) if !text.trim_start().starts_with('[') => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                let list = items.map(|item| Value::from(item.to_owned())).collect();
                return self.put(key, Value::Array(list), source.clone());
            }
            _ => Some(text),
        };
        let Some(literal) = literal else {
            let value = DeValue::String(text.into());
            return self.read_value(node, key, &value, source);
        };
        match DeValue::parse(literal) {
            Ok(value) => self.read_value(node, key, value.get_ref(), source),
            // Not a literal at all: report it as the text that it is.
            Err(_) => self.read_value(node, key, &DeValue::String(text.into()), source),
        }
    }

    fn read_table(
        &mut self,
        node: &'s Value,
        at: &str,
        table: &DeTable<'_>,
        locate: &dyn Fn(Range<usize>) -> Source,
    ) {
        let Some(Kind::Section(properties)) = kind_of(node) else {
            return;
        };
        for (key, value) in table {
            let path = join(at, key.get_ref());
            let Some(node) = properties.get(key.get_ref().as_ref()) else {
                let known = properties.keys().map(String::as_str);
                let hint =
                    nearest(key.get_ref(), known).map(|near| format!("did you mean `{near}`?"));
                let hint = hint.or_else(|| Some(self.section_keys(at, properties)));
                self.add_problem(locate(key.span()), &path, "unknown key".to_owned(), hint);
                continue;
            };
            self.read_spanned(node, &path, value, locate);
        }
    }

    fn read_spanned(
        &mut self,
        node: &'s Value,
        path: &str,
        value: &Spanned<DeValue<'_>>,
        locate: &dyn Fn(Range<usize>) -> Source,
    ) {
        match (kind_of(node), value.get_ref()) {
            (Some(Kind::Section(_)), DeValue::Table(inner)) => {
                self.read_table(node, path, inner, locate)
            }
            _ => self.read_value(node, path, value.get_ref(), &locate(value.span())),
        }
    }

    fn read_value(&mut self, node: &Value, path: &str, value: &DeValue<'_>, source: &Source) {
        let Some(kind) = kind_of(node) else { return };
        match convert(&kind, value) {
            Some(value) => self.put(path, value, source.clone()),
            None => {
                let message = format!("must be {}, not {}", kind.describe(), shown(value));
                let hint = match (&kind, value.as_str()) {
                    (Kind::Choice(words), Some(text)) => nearest(text, words.iter().copied())
                        .map(|near| format!("did you mean \"{near}\"?")),
                    _ => None,
                };
                self.add_problem(source.clone(), path, message, hint);
            }
        }
    }

    fn put(&mut self, path: &str, value: Value, source: Source) {
        let mut keys = path.split('.');
        let (Some(first), second) = (keys.next(), keys.next()) else {
            return;
        };
        match second {
            None => {
                self.values.insert(first.to_owned(), value);
            }
            Some(second) => {
                let section = self
                    .values
                    .entry(first)
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Some(section) = section.as_object_mut() {
                    section.insert(second.to_owned(), value);
                }
            }
        }
        self.sources.insert(path.to_owned(), source);
    }

    /// The schema node of a key that holds a value.
    fn node_at(&self, key: &str) -> Option<&'s Value> {
        let mut node = self.schema;
        for part in key.split('.') {
            node = node.get("properties")?.get(part)?;
        }
        (!matches!(kind_of(node), Some(Kind::Section(_)))).then_some(node)
    }

    fn nearest_key(&self, key: &str) -> Option<String> {
        let keys = all_keys(self.schema);
        nearest(key, keys.iter().map(String::as_str)).map(|near| {
            let variable = near.to_ascii_uppercase().replace('.', "__");
            format!("did you mean `{near}` ({ENV_PREFIX}{variable})?")
        })
    }

    fn section_keys(&self, at: &str, properties: &Map<String, Value>) -> String {
        let keys: Vec<&str> = properties.keys().map(String::as_str).collect();
        if at.is_empty() {
            format!("known sections: {}", keys.join(", "))
        } else {
            format!("[{at}] has {}", keys.join(", "))
        }
    }

    fn add_problem(&mut self, source: Source, key: &str, message: String, hint: Option<String>) {
        self.problems.push(ConfigProblem {
            source,
            key: key.to_owned(),
            message,
            hint,
        });
    }
}

/// Every key that holds a value, with its section.
pub(crate) fn all_keys(schema: &Value) -> Vec<String> {
    let mut keys = Vec::new();
    let Some(Kind::Section(sections)) = kind_of(schema) else {
        return keys;
    };
    for (name, node) in sections {
        match kind_of(node) {
            Some(Kind::Section(inner)) => keys.extend(inner.keys().map(|key| join(name, key))),
            _ => keys.push(name.clone()),
        }
    }
    keys
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() {
        key.to_owned()
    } else {
        format!("{at}.{key}")
    }
}

fn convert(kind: &Kind<'_>, value: &DeValue<'_>) -> Option<Value> {
    match (kind, value) {
        (Kind::Text, DeValue::String(text)) => Some(text.as_ref().into()),
        (Kind::Choice(words), DeValue::String(text)) => {
            words.contains(&text.as_ref()).then(|| text.as_ref().into())
        }
        (Kind::Boolean, DeValue::Boolean(yes)) => Some((*yes).into()),
        (Kind::Integer { min, max }, DeValue::Integer(number)) => {
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
            (*min..=*max).contains(&number).then(|| number.into())
        }
        (Kind::TextList, DeValue::Array(items)) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(Value::from))
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        (Kind::TextMap, DeValue::Table(entries)) => entries
            .iter()
            .map(|(key, item)| Some((key.get_ref().to_string(), item.get_ref().as_str()?.into())))
            .collect::<Option<Map<_, _>>>()
            .map(Value::Object),
        _ => None,
    }
}

/// A value as it is named in a message: bounded, and not the contents of a table.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let short: String = text.chars().take(60).collect();
            format!("\"{}\"", short.escape_debug())
        }
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(yes) => yes.to_string(),
        other => format!("this {}", other.type_str()),
    }
}

fn position(path: &Path, text: &str, offset: usize) -> Source {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |last| last.chars().count())
        + 1;
    Source::File {
        path: path.to_owned(),
        line,
        column,
    }
}

/// Kubernetes adds such variables for a Service called `mosaic-federation`; no key looks like them.
fn is_service_link(rest: &str) -> bool {
    rest == "SERVICE_HOST"
        || rest == "PORT"
        || rest.starts_with("SERVICE_PORT")
        || rest
            .strip_prefix("PORT_")
            .is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()))
}
