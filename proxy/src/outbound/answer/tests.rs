//! Answers of honest and hostile peers, in every cutting.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn retag(shape: Shape, limits: AnswerLimits, pieces: &[&[u8]]) -> Result<String, AnswerFault> {
    let mut retagger = Retagger::new(shape, "work", limits);
    let mut out = Vec::new();
    for piece in pieces {
        retagger.push(piece, &mut out)?;
    }
    retagger.finish(&mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn items(text: &str) -> Result<String, AnswerFault> {
    retag(Shape::Items, AnswerLimits::default(), &[text.as_bytes()])
}

#[test]
fn rows_are_tagged_with_the_local_name() {
    assert_eq!(
        items(r#"{"items":[{"_source":"local","id":"1"},{"id":"2","_cached":true}],"nextCursor":"abc","_partial":false,"_truncated":true}"#).unwrap(),
        r#"{"items":[{"_source":"work","id":"1"},{"_source":"work","id":"2"}],"nextCursor":"abc","_partial":false,"_truncated":true}"#
    );
    assert_eq!(
        retag(
            Shape::Item,
            AnswerLimits::default(),
            &[br#"{ "item" : {"id":"1","_x":{"y":1}} }"#]
        )
        .unwrap(),
        r#"{"item":{"_source":"work","id":"1"}}"#
    );
    assert_eq!(
        retag(
            Shape::Plain,
            AnswerLimits::default(),
            &[br#"{"resources":["tasks"],"_x":1}"#]
        )
        .unwrap(),
        r#"{"resources":["tasks"]}"#
    );
}

#[test]
fn hits_are_tagged_as_rows_are() {
    let hits = |text: &str| retag(Shape::Hits, AnswerLimits::default(), &[text.as_bytes()]);
    assert_eq!(
        hits(r#"{"items":[{"resource":"tasks","item":{"_source":"local","id":"1"},"score":2.5}],"_partial":true}"#).unwrap(),
        r#"{"items":[{"resource":"tasks","item":{"_source":"work","id":"1"},"score":2.5}],"_partial":true,"_truncated":false}"#
    );
    assert_eq!(
        hits(r#"{"items":[{"id":"1"}]}"#),
        Err(AnswerFault::Malformed),
        "a row is no hit"
    );
    assert_eq!(hits("{}"), Err(AnswerFault::Malformed));
}

#[test]
fn members_may_come_in_any_order_and_unknown_ones_are_left_out() {
    assert_eq!(
        items(r#" {"_notices":[{"peer":"x"}],"_truncated":true,"more":{"a":[1]},"nextCursor":null,"items":[]} "#).unwrap(),
        r#"{"items":[],"_partial":false,"_truncated":true}"#
    );
}

#[test]
fn hostile_answers_are_faults() {
    use AnswerFault::{Malformed, TooDeep, TooLarge, TooManyRows, Truncated};
    for (text, fault) in [
        ("", Truncated),
        ("[]", Malformed),
        ("null", Malformed),
        ("{}", Malformed),
        (r#"{"items":{}}"#, Malformed),
        (r#"{"items":[1]}"#, Malformed),
        (r#"{"items":[null]}"#, Malformed),
        (r#"{"items":[[]]}"#, Malformed),
        (r#"{"items":[{}{}]}"#, Malformed),
        (r#"{"items":[{},]}"#, Malformed),
        (r#"{"items":[,{}]}"#, Malformed),
        (r#"{"items":[{"a":1,}]}"#, Malformed),
        (r#"{"items":[]"#, Truncated),
        (r#"{"items":[{"id":"1"}"#, Truncated),
        (r#"{"items":[{"id":"1"},"#, Truncated),
        (r#"{"items":[{"id":"1"}]"#, Truncated),
        (r#"{"items":[],}"#, Malformed),
        (r#"{"items":[]} x"#, Malformed),
        (r#"{"items":[]}{"items":[]}"#, Malformed),
        (r#"{"items":[],"items":[]}"#, Malformed),
        (r#"{"items":[],"\u0069tems":[]}"#, Malformed),
        (r#"{"items":[],"_partial":1}"#, Malformed),
        (r#"{"items":[],"nextCursor":{}}"#, Malformed),
        (r#"{"items":[],"x":}"#, Malformed),
        (r#"{"items":[],"x":01}"#, Malformed),
        (r#"{"item":{}}"#, Malformed),
    ] {
        assert_eq!(items(text), Err(fault), "{text}");
    }
    let deep = format!(
        r#"{{"items":[{}{}]}}"#,
        r#"{"a":"#.repeat(65),
        "1".to_owned() + &"}".repeat(65)
    );
    assert_eq!(items(&deep), Err(TooDeep));
    let unfinished = format!(r#"{{"items":[{}"#, r#"{"a":"#.repeat(100_000));
    assert_eq!(items(&unfinished), Err(TooDeep));
    let tight = AnswerLimits {
        total: 100,
        row: 20,
        rows: 2,
        depth: 8,
        member: 10,
    };
    let with = |text: &str| retag(Shape::Items, tight, &[text.as_bytes()]);
    assert_eq!(
        with(&format!(r#"{{"items":[{{"a":"{}"}}]}}"#, "x".repeat(30))),
        Err(TooLarge)
    );
    assert_eq!(
        with(&format!(r#"{{"items":[{{"a":"{}"#, "x".repeat(30))),
        Err(TooLarge)
    );
    assert_eq!(with(r#"{"items":[{},{},{}]}"#), Err(TooManyRows));
    assert_eq!(with(&format!("{}{{}}", " ".repeat(101))), Err(TooLarge));
    assert_eq!(with(r#"{"a-very-long-name":1,"items":[]}"#), Err(TooLarge));
}

#[test]
fn many_small_members_do_not_add_up() {
    let many = r#""a":1,"#.repeat(100);
    assert_eq!(
        items(&format!(r#"{{{many}"items":[]}}"#)),
        Err(AnswerFault::Malformed)
    );
}

fn answer() -> impl Strategy<Value = Value> {
    let row =
        prop::collection::vec(("[_ab]{1,2}", "[\\PC\"\\\\]{0,8}"), 0..4).prop_map(|members| {
            Value::Object(members.into_iter().map(|(k, v)| (k, json!(v))).collect())
        });
    (prop::collection::vec(row, 0..5), any::<bool>(), prop::option::of("[a-z]{1,5}"))
        .prop_map(|(rows, truncated, cursor)| json!({"items": rows, "_truncated": truncated, "nextCursor": cursor}))
}

proptest! {
    #[test]
    fn cutting_makes_no_difference(answer in answer(), size in 1_usize..9) {
        let text = answer.to_string();
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let whole = items(&text).unwrap();
        prop_assert_eq!(retag(Shape::Items, AnswerLimits::default(), &pieces).unwrap(), whole.clone());
        let read: Value = serde_json::from_str(&whole).unwrap();
        let rows = read.pointer("/items").and_then(Value::as_array).unwrap();
        prop_assert_eq!(Some(rows.len()), answer.pointer("/items").and_then(Value::as_array).map(Vec::len));
        prop_assert!(rows.iter().all(|row| row.get("_source") == Some(&json!("work"))));
    }

    #[test]
    fn a_truncated_answer_is_never_whole(answer in answer(), cut in any::<prop::sample::Index>()) {
        let text = answer.to_string();
        let cut = cut.index(text.len());
        let part = text.as_bytes().get(..cut).unwrap();
        prop_assert!(retag(Shape::Items, AnswerLimits::default(), &[part]).is_err());
    }

    #[test]
    fn what_comes_out_is_json(text in "\\{\"items\":\\[[\\[\\]{}\",:_a1 ]{0,12}\\]\\}") {
        if let Ok(out) = items(&text) {
            prop_assert!(serde_json::from_str::<Value>(&out).is_ok());
        }
    }
}
