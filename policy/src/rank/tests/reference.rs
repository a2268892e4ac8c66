//! The matcher against a slow reading of the same rows.
//!
//! Invariant: nothing of the matcher takes part: rows are read with a JSON library, every text is cut into words from
//! its first character to its last, and terms are compared with the words one by one.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::fold::{Class, folded};
use super::super::matcher::{Scratch, count};
use super::super::visible::Unsearched;
use super::{fields, query};

/// The words of a text; characters of scripts without spaces are words of their own.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for character in text.chars() {
        match Class::of(character) {
            Class::Spaced => word.push(character),
            class => {
                if !word.is_empty() {
                    words.push(folded(&std::mem::take(&mut word)));
                }
                if class == Class::Unspaced {
                    words.push(folded(&character.to_string()));
                }
            }
        }
    }
    if !word.is_empty() {
        words.push(folded(&word));
    }
    words
}

fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(members) => members.values().for_each(|member| texts(member, found)),
        _ => {}
    }
}

/// How often the words of `term` follow each other in the searchable texts of `row`.
fn slowly(row: &Value, term: &str, prefix: bool) -> u32 {
    let mut found = Vec::new();
    for (name, member) in row.as_object().unwrap() {
        if ![
            "_source",
            "id",
            "createdAt",
            "ownerId",
            "teamId",
            "projectId",
            "missionId",
        ]
        .contains(&name.as_str())
        {
            texts(member, &mut found);
        }
    }
    let wanted = words(term);
    let mut times = 0;
    for text in found {
        let words = words(&text);
        for window in words.windows(wanted.len()) {
            let (last, others) = window.split_last().unwrap();
            let (end, begin) = wanted.split_last().unwrap();
            let ends = if prefix {
                last.starts_with(end.as_str())
            } else {
                last == end
            };
            times += u32::from(others == begin && ends);
        }
    }
    times
}

/// Texts in which words of the query are likely, with everything that makes reading them hard.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "ab", "Ab", "abc", "ß", "SS", "é", "大", "き", "大き", " ", "  ", "-", "_", "\n", "\"",
            "\\", "/", "1", "İ", "ς", "Σ", "\u{212a}", "k", ".", "u", "\u{1}", "한국",
        ])
        .prop_map(str::to_owned),
        "\\PC".prop_map(|text| text),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn any_term() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "ab",
        "abc",
        "ss",
        "é",
        "大",
        "大き",
        "き",
        "1",
        "k",
        "σ",
        "u",
        "ab ab",
        "ab ss",
        "大き ab",
        "한국",
        "ß 1",
        "i",
    ])
    .prop_map(str::to_owned)
}

/// The row as JSON, some characters spelled as escapes that need not be.
fn spelled(row: &Value, escape: bool) -> String {
    let text = row.to_string();
    if escape {
        text.replace("ab", "\\u0061b").replace('大', "\\u5927")
    } else {
        text
    }
}

proptest! {
    #[test]
    fn occurrences_are_those_of_a_slow_reading(
        title in any_text(), inner in any_text(), id in any_text(), term in any_term(), prefix: bool, escape: bool,
    ) {
        let row = json!({"_source": "local", "id": id, "createdAt": "ab", "title": title, "n": 1,
            "meta": {"list": [inner, {"ab": null}], "id": "ab ss"}, "teamId": "ab"});
        let star = if prefix { "*" } else { "" };
        let query = query(&format!("\"{term}{star}\""));
        let (unsearched, mut scratch) = (Unsearched::of(&fields()), Scratch::default());
        let mut counts = Vec::new();
        let text = spelled(&row, escape);
        let any = count(&query, text.as_bytes(), &unsearched, &mut scratch, &mut counts);
        let expected = slowly(&row, &term, prefix);
        prop_assert_eq!(any, expected > 0, "{} in {}", term, text);
        prop_assert_eq!(counts.first().copied().unwrap_or(0), expected, "{} in {}", term, text);
    }
}
