//! The reference page of the settings, written from their schema.
//!
//! Invariant: `docs/reference/configuration.md` is exactly this text; a test compares them, and
//! `UPDATE_DOCS=1` makes that test rewrite the file.

use serde_json::Value;

use super::schema::{Kind, description, kind_of, settings_schema};
use super::tree::ENV_PREFIX;

const HEAD: &str = "\
# Settings

<!-- Written from the settings' JSON Schema; `UPDATE_DOCS=1 cargo test -p proxy reference` rewrites it. -->

The sidecar reads `federation.toml` once, at start. It is the file named by `--config` or by the variable
`MOSAIC_FEDERATION_CONFIG`, else `federation.toml` in the working directory, else
`/etc/mosaic-federation/federation.toml`. Without any, every key has its default.

Each key can be overridden by the environment variable `MOSAIC_FEDERATION_<SECTION>__<KEY>` (two underscores
between section and key, none for `data_dir`), and that again by `--set section.key=value`. A list is written
there as `a,b`, a table as in TOML.

Unknown keys, variables and sections are errors, as are keys without effect; all problems are reported at once,
with file and line. Durations are whole numbers with the unit in the key (`_ms`, `_s`, `_days`). Relative paths
are relative to the settings file; in variables and flags to the working directory.

What peers may see is not set here but in the policy files. The JSON Schema of this file is printed by
`mosaic-federation policy schema --settings`.
";

/// The page, in Markdown.
#[must_use]
pub fn settings_reference() -> String {
    let schema = settings_schema();
    let mut page = HEAD.to_owned();
    let Some(Kind::Section(sections)) = kind_of(&schema) else {
        return page;
    };
    page.push_str("\n## Top level\n\n");
    for (key, node) in sections {
        if !matches!(kind_of(node), Some(Kind::Section(_))) {
            add_key(&mut page, "", key, node);
        }
    }
    for (section, node) in sections {
        if let Some(Kind::Section(keys)) = kind_of(node) {
            page.push_str(&format!(
                "\n## [{section}]\n\n{}\n\n",
                one_line(description(node))
            ));
            for (key, node) in keys {
                add_key(&mut page, section, key, node);
            }
        }
    }
    page
}

fn add_key(page: &mut String, section: &str, key: &str, node: &Value) {
    let kind = kind_of(node)
        .map(|kind| kind.describe())
        .unwrap_or_default();
    let default = match node.get("default") {
        None | Some(Value::Null) => "not set".to_owned(),
        Some(value) => format!("`{value}`"),
    };
    let separator = if section.is_empty() { "" } else { "__" };
    let variable = format!("{ENV_PREFIX}{section}{separator}{key}").to_ascii_uppercase();
    page.push_str(&format!(
        "- **`{key}`**: {}\n  {}; default {default}. Variable `{variable}`.\n",
        one_line(description(node)),
        capital(&kind),
    ));
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().chain(characters).collect())
        .unwrap_or_default()
}
