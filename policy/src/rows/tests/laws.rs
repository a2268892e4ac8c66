//! Laws: the filter does what the slow reading says, however the body is cut, and never more.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::rows::fields::Fields;
use crate::rows::scan::Scanner;
use crate::rows::walk::{Walk, Walker};
use crate::rows::words::says_secret;
use crate::rows::{Redaction, Tally};

use super::reference::{Expected, Node, judge};
use super::texts::{row, rules, spell, value};
use super::{Reading, Rules, Seen, read, rows_at};

/// A body with its rows at `data.rows`, among other members.
fn body(rows: &[Node], seed: u64) -> String {
    let rows = Node::Array(rows.to_vec());
    let data = Node::Object(vec![
        (
            "next".to_owned(),
            Node::Array(vec![Node::Null, Node::Text("]}".to_owned())]),
        ),
        ("rows".to_owned(), rows),
        ("count".to_owned(), Node::Number(1.into())),
    ]);
    let body = Node::Object(vec![
        (
            "rows".to_owned(),
            Node::Object(vec![("rows".to_owned(), Node::Null)]),
        ),
        ("data".to_owned(), data),
    ]);
    let mut text = String::new();
    spell(&body, &mut seed.clone(), &mut text);
    text
}

/// Compares what was read with what the rules say about each of `rows`.
fn compare(rules: &Rules, rows: &[Node], reading: &Reading) -> Result<(), TestCaseError> {
    prop_assert_eq!(reading.seen.len(), rows.len());
    let (mut tally, mut last) = (Tally::default(), None);
    for ((seen, key), row) in reading.seen.iter().zip(&reading.keys).zip(rows) {
        let (expected, expected_key, redacted) = judge(rules, row);
        last = expected_key.or(last);
        prop_assert_eq!(key, &last);
        tally.examined += 1;
        match (seen, expected) {
            (Seen::Row(text), Expected::Row(node)) => {
                tally.passed += 1;
                tally.redacted_members += redacted;
                prop_assert_eq!(serde_json::from_str::<Node>(text).unwrap(), node);
            }
            (Seen::Withheld, Expected::Withheld) => tally.withheld += 1,
            (Seen::Unmatched, Expected::Unmatched) => tally.unmatched += 1,
            (seen, expected) => {
                return Err(TestCaseError::fail(format!("{seen:?} is not {expected:?}")));
            }
        }
    }
    prop_assert_eq!(reading.tally, tally);
    Ok(())
}

fn says_nothing_secret(node: &Node, rules: &Rules, path: Option<&str>) -> bool {
    match node {
        Node::Array(items) => items
            .iter()
            .all(|item| says_nothing_secret(item, rules, path)),
        Node::Object(members) => members.iter().all(|(name, value)| {
            // A member may have an empty name, so the top is not told by an empty path.
            let path = match path {
                None => name.clone(),
                Some(path) => format!("{path}.{name}"),
            };
            (!says_secret(name) || rules.exempt.contains(&&*path))
                && !rules.fields.contains(&&*path)
                && says_nothing_secret(value, rules, Some(&path))
        }),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_fast_and_the_slow_reading_agree(
        rules in rules(),
        rows in vec(row(), 0..12),
        seed in prop_oneof![Just(0), any::<u64>()],
        cuts in vec(0usize..6000, 0..12),
    ) {
        let body = body(&rows, seed);
        let filter = rules.filter();
        let reading = read(&filter, rows_at("data.rows"), body.as_bytes(), &cuts);
        prop_assert_eq!(reading.end, Ok(()));
        compare(&rules, &rows, &reading)?;
        let whole = read(&filter, rows_at("data.rows"), body.as_bytes(), &[]);
        prop_assert_eq!(whole, reading);
    }

    #[test]
    fn one_byte_at_a_time_is_the_same(rules in rules(), rows in vec(row(), 0..5), seed: u64) {
        let body = body(&rows, seed);
        let every: Vec<usize> = (0..body.len()).collect();
        let filter = rules.filter();
        let whole = read(&filter, rows_at("data.rows"), body.as_bytes(), &[]);
        prop_assert_eq!(read(&filter, rows_at("data.rows"), body.as_bytes(), &every), whole);
    }

    #[test]
    fn nothing_secret_ever_leaves(rules in rules(), rows in vec(row(), 0..8), seed: u64) {
        let body = body(&rows, seed);
        for seen in read(&rules.filter(), rows_at("data.rows"), body.as_bytes(), &[]).seen {
            if let Seen::Row(text) = seen {
                let node: Node = serde_json::from_str(&text).unwrap();
                prop_assert!(says_nothing_secret(&node, &rules, None), "{}", text);
                let Node::Object(members) = node else { panic!("a row is an object") };
                let own: Vec<_> = members.iter().filter(|(name, _)| name.starts_with('_')).collect();
                prop_assert_eq!(own, [&("_source".to_owned(), Node::Text("local".to_owned()))]);
            }
        }
    }

    #[test]
    fn a_body_cut_short_never_ends_well(
        rules in rules(),
        rows in vec(row(), 0..4),
        seed: u64,
        cuts in vec(0usize..3000, 0..4),
    ) {
        let body = body(&rows, seed);
        let filter = rules.filter();
        let whole = read(&filter, rows_at("data.rows"), body.as_bytes(), &[]).seen;
        for length in 0..body.len() {
            let part = read(&filter, rows_at("data.rows"), &body.as_bytes()[..length], &cuts);
            prop_assert!(part.end.is_err(), "{}", &body[..length]);
            prop_assert!(whole.starts_with(&part.seen));
        }
    }

    #[test]
    fn one_wrong_byte_is_a_fault_or_another_sound_body(
        rules in rules(),
        rows in vec(row(), 1..4),
        seed in prop_oneof![Just(0), any::<u64>()],
        place: prop::sample::Index,
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\ 0-.eEntfu\0\xff".to_vec())],
        cuts in vec(0usize..3000, 0..4),
    ) {
        let mut body = body(&rows, seed).into_bytes();
        let at = place.index(body.len());
        body[at] = byte;
        let reading = read(&rules.filter(), rows_at("data.rows"), &body, &cuts);
        if reading.end.is_ok() {
            let members = match serde_json::from_slice::<Node>(&body) {
                Ok(Node::Object(members)) => members,
                // Numbers too large for a double are JSON all the same.
                Err(error) if error.to_string().starts_with("number out of range") => return Ok(()),
                other => return Err(TestCaseError::fail(format!("ends well, but is {other:?}"))),
            };
            let data: Vec<_> = members.iter().filter(|(name, _)| name == "data").collect();
            let [(_, Node::Object(data))] = data.as_slice() else {
                return Err(TestCaseError::fail("ends well, but has no data"));
            };
            let found: Vec<_> = data.iter().filter(|(name, _)| name == "rows").collect();
            let [(_, Node::Array(found))] = found.as_slice() else {
                return Err(TestCaseError::fail("ends well, but has no rows"));
            };
            compare(&rules, found, &reading)?;
        }
    }

    #[test]
    fn the_scanner_accepts_what_the_walker_accepts(
        node in value(),
        seed: u64,
        changes in vec((any::<prop::sample::Index>(), prop::sample::select(b"{}[]\",:\\ 0-.eEntfu1\0\x7f\xc3\xff".to_vec())), 0..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut text = String::new();
        spell(&Node::Object(vec![("a".to_owned(), node)]), &mut seed.clone(), &mut text);
        let mut text = text.trim_start().to_owned().into_bytes();
        for (place, byte) in changes {
            let at = place.index(text.len());
            text[at] = byte;
        }
        let mut walker = Walker::new(1);
        let (front, back) = text.split_at(cut.index(text.len()));
        let walked = match walker.walk(front) {
            Ok(Walk::More) => match walker.walk(back) {
                Ok(Walk::Done(length)) => Some(front.len() + length),
                _ => None,
            },
            Ok(Walk::Done(length)) => Some(length),
            Err(_) => None,
        };
        if text[0] == b'{' {
            let fields = Fields::new(crate::resource::Resource::Tasks, Redaction::default().into(), "id", "createdAt");
            prop_assert_eq!(Scanner::new().scan(&fields, &text, 1), walked);
        }
        let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<Node>();
        if let Some(Ok(_)) = values.next() {
            let end = values.byte_offset();
            // A number at the very end could go on.
            prop_assert!(walked == Some(end) || text[0].is_ascii_digit() || text[0] == b'-');
        } else if let Some(length) = walked {
            // Numbers too large for a double are JSON all the same; and what follows a bare number
            // is not the walker's to judge.
            prop_assert!(
                text[..length].iter().any(|byte| matches!(byte, b'e' | b'E'))
                    || text[0].is_ascii_digit()
                    || text[0] == b'-'
            );
        }
    }
}
