//! Bodies made to mislead, to exhaust, or of another shape than the mapping says.

use crate::mapping::MemberPath;
use crate::resource::Resource;
use crate::rows::{ItemVerdict, MAX_ROW, RowError, RowReader, RowsAt, Step, filter_one};

use super::{Rules, Seen, read, rows_at};

const ROW: &str = r#"{"id":"r","createdAt":"2026-01-02T03:04:05.678Z","ownerId":"u1"}"#;

fn end(path: &str, body: &[u8]) -> Result<(), RowError> {
    let filter = Rules::usual(Resource::Tasks).filter();
    let whole = read(&filter, rows_at(path), body, &[]);
    let every: Vec<usize> = (0..body.len()).collect();
    assert_eq!(read(&filter, rows_at(path), body, &every), whole);
    whole.end
}

fn with_member(member: &str) -> Vec<u8> {
    format!("[{},{member}}}]", ROW.trim_end_matches('}')).into_bytes()
}

#[test]
fn what_is_not_json_is_a_fault() {
    for member in [
        "\"a\":01",
        "\"a\":-",
        "\"a\":1.",
        "\"a\":.5",
        "\"a\":1e",
        "\"a\":1e+",
        "\"a\":+1",
        "\"a\":0x1",
        "\"a\":NaN",
        "\"a\":Infinity",
        "\"a\":tru",
        "\"a\":nul",
        "\"a\":truer",
        "\"a\":True",
        "\"a\"",
        "\"a\":",
        "\"a\":,\"b\":1",
        "a:1",
        "'a':1",
        "\"a\":1,",
        ",\"a\":1",
        "\"a\":[1,]",
        "\"a\":[,1]",
        "\"a\":[1 2]",
        "\"a\":{\"b\" 1}",
        "\"a\":{,}",
        "\"a\":\"\\x\"",
        "\"a\":\"\\u12g4\"",
        "\"a\":\"\\ud800\"",
        "\"a\":\"\\ud800\\u0041\"",
        "\"a\":\"\\udc00\"",
        "\"\\ud800\":1",
        "\"a\":\"\t\"",
        "\"a\":\"\0\"",
        "\"a\":\0",
        "\"a\":\u{c}1",
        "\"a\":\u{a0}1",
        "\"a\":1/**/",
        "\"a\":[}",
        "\"a\":{]",
    ] {
        let fault = end("", &with_member(member));
        assert!(
            matches!(fault, Err(RowError::Malformed { .. })),
            "{member}: {fault:?}"
        );
    }
    for (body, offset) in [
        ("\u{feff}[]", 0),
        ("[]]", 2),
        ("[] x", 3),
        ("[],", 2),
        ("[{}{}]", 3),
        ("}", 0),
    ] {
        assert_eq!(
            end("", body.as_bytes()),
            if body == "\u{feff}[]" || body == "}" {
                Err(RowError::NotRows)
            } else {
                Err(RowError::Malformed { offset })
            },
            "{body}"
        );
    }
}

#[test]
fn what_is_json_is_not_a_fault() {
    for member in [
        "\"a\":-0",
        "\"a\":1E400",
        "\"a\":0.0e-0",
        "\"a\":\"\u{7f}\u{2028}\"",
        "\"a\":\"\\ud83d\\ude00\\/\\b\"",
        "\"\":{}",
        "\"a\" \n:\t[ ]\r",
        "\"a\":[[],{},\"\",0,null]",
    ] {
        assert_eq!(end("", &with_member(member)), Ok(()), "{member}");
    }
    let digits = format!(
        "\"a\":{}.{}e+{}",
        "9".repeat(5000),
        "1".repeat(5000),
        "2".repeat(5000)
    );
    assert_eq!(end("", &with_member(&digits)), Ok(()));
}

#[test]
fn what_is_not_utf8_is_a_fault() {
    for bytes in [
        &b"\x80"[..],
        b"\xc0\xaf",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xff",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
    ] {
        let mut body = ROW.trim_end_matches('}').as_bytes().to_vec();
        body.insert(0, b'[');
        body.extend_from_slice(b",\"a\":\"x");
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\"}]");
        assert!(
            matches!(end("", &body), Err(RowError::NotUtf8 { .. })),
            "{bytes:x?}"
        );
    }
}

#[test]
fn nesting_has_an_end() {
    let nested = |levels: usize| {
        with_member(&format!(
            "\"a\":{}1{}",
            "[".repeat(levels),
            "]".repeat(levels)
        ))
    };
    // The array of rows and the row are two levels.
    assert_eq!(end("", &nested(62)), Ok(()));
    assert!(matches!(
        end("", &nested(63)),
        Err(RowError::TooDeep { .. })
    ));
    assert!(matches!(
        end("", &nested(100_000)[..2000]),
        Err(RowError::TooDeep { .. })
    ));
    let around = |levels: usize| {
        format!(
            "{{\"a\":{}{},\"rows\":[]}}",
            "{\"b\":".repeat(levels) + "0",
            "}".repeat(levels)
        )
    };
    assert_eq!(end("rows", around(63).as_bytes()), Ok(()));
    assert!(matches!(
        end("rows", around(64).as_bytes()),
        Err(RowError::TooDeep { .. })
    ));
}

#[test]
fn rows_are_found_in_one_place_or_not_at_all() {
    for (path, body, expected) in [
        ("rows", "{}", Err(RowError::NoRows)),
        (
            "rows",
            r#"{"row":[],"items":{"rows":[]}}"#,
            Err(RowError::NoRows),
        ),
        ("data.rows", r#"{"data":{"x":1}}"#, Err(RowError::NoRows)),
        ("rows", r#"{"error":"no"}"#, Err(RowError::NoRows)),
        ("rows", r#"{"rows":null}"#, Err(RowError::NotRows)),
        ("rows", r#"{"rows":{}}"#, Err(RowError::NotRows)),
        ("rows", "[]", Err(RowError::NotRows)),
        ("", "{}", Err(RowError::NotRows)),
        ("data.rows", r#"{"data":[]}"#, Err(RowError::NotRows)),
        ("rows", r#"{"rows":[],"rows":[]}"#, Err(RowError::RowsTwice)),
        (
            "rows",
            r#"{"rows":[],"\u0072ows":[]}"#,
            Err(RowError::RowsTwice),
        ),
        (
            "data.rows",
            r#"{"data":{"rows":[]},"data":{"rows":[]}}"#,
            Err(RowError::RowsTwice),
        ),
        ("rows", "", Err(RowError::Truncated)),
        ("rows", "  ", Err(RowError::Truncated)),
        ("", "[", Err(RowError::Truncated)),
        (
            "data.rows",
            r#" { "x" : {"rows":[1]} , "d\u0061ta" : { "rows" : [ ] , "y" : 2 } } "#,
            Ok(()),
        ),
        ("", " [ ] ", Ok(())),
    ] {
        assert_eq!(end(path, body.as_bytes()), expected, "{path}: {body}");
    }
    let long = format!("{{\"{}\":1,\"rows\":[]}}", "n".repeat(70_000));
    let filter = Rules::usual(Resource::Tasks).filter();
    assert_eq!(
        read(&filter, rows_at("rows"), long.as_bytes(), &[]).end,
        Err(RowError::NameTooLong)
    );
}

#[test]
fn rows_that_are_not_objects_are_withheld() {
    let filter = Rules::usual(Resource::Tasks).filter();
    let body = format!("[1, -2.5e3 ,\"x\",null,true,[{ROW}],{ROW},[]]");
    let reading = read(&filter, rows_at(""), body.as_bytes(), &[]);
    assert_eq!(reading.end, Ok(()));
    assert_eq!(
        (
            reading.tally.examined,
            reading.tally.withheld,
            reading.tally.passed
        ),
        (8, 7, 1)
    );
}

#[test]
fn a_row_over_the_bound_is_withheld_and_not_kept() {
    let filter = Rules::usual(Resource::Tasks).filter();
    let sized = |size: usize| {
        let rest = ",\"a\":\"\"}".len();
        let head = ROW.trim_end_matches('}').replace("\"r\"", "\"big\"");
        let filling = size - head.len() - rest;
        format!("{head},\"a\":\"{}\"}}", "x".repeat(filling))
    };
    for (size, passed) in [(MAX_ROW, 3), (MAX_ROW + 1, 2), (3 * MAX_ROW, 2)] {
        let body = format!("[{ROW},{},{ROW}]", sized(size));
        let whole = read(&filter, rows_at(""), body.as_bytes(), &[]);
        assert_eq!((whole.end, whole.tally.passed), (Ok(()), passed), "{size}");
        assert_eq!(whole.tally.oversized, 3 - passed);
        assert_eq!(whole.keys[1].as_ref().unwrap().2, "big");
        let cuts: Vec<usize> = (0..body.len()).step_by(10_007).collect();
        assert_eq!(read(&filter, rows_at(""), body.as_bytes(), &cuts), whole);
        let broken = body.replace("x\"}", "x\"]");
        assert!(
            read(&filter, rows_at(""), broken.as_bytes(), &cuts)
                .end
                .is_err()
        );
    }
}

#[test]
fn memory_is_bounded_whatever_the_size() {
    let mut reader = RowReader::new(Rules::usual(Resource::Tasks).filter(), rows_at("rows"));
    let mut out = Vec::new();
    // 32 MiB around the rows, then a row of 32 MiB, never held at once.
    for (open, close) in [("{\"x\":\"", "\","), ("\"rows\":[{\"y\":\"", "\"}]}")] {
        reader.push(open.as_bytes());
        let chunk = [b'x'; 16 << 10];
        for _ in 0..2048 {
            assert_eq!(reader.step(&mut out), Ok(Step::NeedInput));
            reader.push(&chunk);
            assert!(reader.held() <= MAX_ROW + (64 << 10));
        }
        reader.push(close.as_bytes());
    }
    assert_eq!(reader.step(&mut out), Ok(Step::Withheld));
    reader.close();
    assert_eq!(reader.step(&mut out), Ok(Step::End));
    assert_eq!(reader.tally().oversized, 1);
}

#[test]
fn names_without_end_cost_no_memory() {
    let rules = Rules::usual(Resource::Tasks);
    let head = ROW.trim_end_matches('}');
    let rows: Vec<String> = (0..3000)
        .map(|i| format!("{head},\"name{i}\":{i},\"token{i}\":1,\"x\":{{\"secret{i}\":1}}}}"))
        .collect();
    let body = format!("[{}]", rows.join(","));
    let reading = read(&rules.filter(), rows_at(""), body.as_bytes(), &[]);
    assert_eq!(reading.end, Ok(()));
    assert_eq!(reading.tally.redacted_members, 6000);
    for (i, seen) in reading.seen.iter().enumerate() {
        let expected = format!(
            "{{\"_source\":\"local\",{},\"name{i}\":{i},\"x\":{{}}}}",
            &head[1..]
        );
        assert_eq!(*seen, Seen::Row(expected));
    }
}

#[test]
fn one_item() {
    let filter = Rules::usual(Resource::Tasks).filter();
    let read = |path: &str, body: &str| {
        let mut out = b"kept".to_vec();
        let at = RowsAt::item(&MemberPath::parse(path).unwrap());
        let result = filter_one(&filter, at, body.as_bytes(), &mut out);
        (
            result.map(|(verdict, _)| verdict),
            String::from_utf8(out).unwrap(),
        )
    };
    let passed = format!("kept{{\"_source\":\"local\",{}", &ROW[1..]);
    assert_eq!(read("", ROW), (Ok(ItemVerdict::Passed), passed.clone()));
    let wrapped = format!("{{\"data\":{{\"item\":{ROW}}},\"x\":1}}");
    assert_eq!(
        read("data.item", &wrapped),
        (Ok(ItemVerdict::Passed), passed)
    );
    let kept = || "kept".to_owned();
    assert_eq!(
        read("", &ROW.replace("u1", "u2")),
        (Ok(ItemVerdict::Withheld), kept())
    );
    assert_eq!(read("", "[]"), (Ok(ItemVerdict::Withheld), kept()));
    assert_eq!(read("", "null"), (Ok(ItemVerdict::Absent), kept()));
    assert_eq!(
        read("item", "{\"item\": null }"),
        (Ok(ItemVerdict::Absent), kept())
    );
    assert_eq!(read("item", "{}"), (Err(RowError::NoRows), kept()));
    assert_eq!(read("", &ROW[..20]), (Err(RowError::Truncated), kept()));
    assert!(read("", &format!("{ROW}x")).0.is_err());
    assert_eq!(read("", &format!("{ROW}x")).1, "kept");
}

#[test]
fn stopping_early_is_sound() {
    let filter = Rules::usual(Resource::Tasks).filter();
    let mut reader = RowReader::new(filter, rows_at(""));
    let mut out = Vec::new();
    reader.push(format!("[{ROW},{ROW} this is not JSON").as_bytes());
    assert_eq!(reader.step(&mut out), Ok(Step::Row));
    assert_eq!(reader.key().map(|key| key.id), Some("r"));
    assert_eq!(reader.tally().passed, 1);
}
