//! What searching costs beside reading: 10,000 rows of 1 KiB, read through the filter alone and read through it into a
//! ranker, on one core. Median of several runs of both, in turns.
//!
//! Time is that of the processor where the system tells it (Linux), so that a busy machine does not distort it.
//! Run it with `cargo run --release -p policy --example rankbench`. The bodies are made here, always the same.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

mod common;

use std::sync::Arc;
use std::time::Instant;

use policy::mapping::{FieldMap, MemberPath};
use policy::rank::{Query, Ranker, merge};
use policy::resource::Resource;
use policy::rows::{RowFilter, RowReader, RowsAt, Step};

use common::{filter, mix, processor_time};

const ROWS: u64 = 10_000;
const RUNS: usize = 9;
const ROUNDS: u32 = 10;
const CHUNK: usize = 64 << 10;
/// Words that a text is made of; the later ones are rare.
const VOCABULARY: u64 = 4_000;

/// Spells the word with a number.
type Spelling = fn(u64) -> String;

fn main() {
    let (filter, fields) = filter("search");
    let filter = Arc::new(filter);
    println!(
        "{:<14} {:<22} {:>7} {:>10} {:>10} {:>6}",
        "text", "query", "hits", "read, ms", "search, ms", "ratio"
    );
    let texts: [(&str, Spelling); 3] = [
        ("ASCII", |word| spelled(word, "aeiou")),
        ("some accents", |word| {
            if word % 12 == 5 {
                spelled(word, "äéöüô")
            } else {
                spelled(word, "aeiou")
            }
        }),
        ("all Cyrillic", |word| {
            spelled(word, "aeiou").chars().map(cyrillic).collect()
        }),
    ];
    for (text, word) in texts {
        let body = body(word);
        // Word 3900 is in about one row of 140, word 700 in about one of 25, word 0 in nearly all.
        for (name, query) in [
            ("a rare word", word(3900)),
            ("two words", format!("{} {}", word(3900), word(2500))),
            ("a phrase", format!("\"{} {}\"", word(0), word(3900))),
            (
                "a prefix",
                format!("{}*", word(3900).chars().take(4).collect::<String>()),
            ),
            ("a common word", word(700)),
            ("a word in every row", word(0)),
        ] {
            let query = Query::parse(&query).unwrap();
            let (read, search, hits) = measure(&filter, &fields, &body, &query);
            println!(
                "{text:<14} {name:<22} {hits:>7} {:>10.2} {:>10.2} {:>6.2}",
                read * 1e3,
                search * 1e3,
                search / read
            );
        }
    }
}

/// Seconds to read, seconds to search, and hits.
fn measure(
    filter: &Arc<RowFilter>,
    fields: &FieldMap,
    body: &[u8],
    query: &Query,
) -> (f64, f64, usize) {
    let mut hits = 0;
    let (mut reads, mut searches) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        reads.push(timed(|| read(filter, body, |_, _| {})));
        searches.push(timed(|| {
            let mut ranker = Ranker::new(query, Resource::Tasks, 100, 16 << 20);
            ranker.turn_to(fields);
            read(filter, body, |row, reader| ranker.row(row, reader.key()));
            let ranking = merge(vec![ranker], 10_000);
            hits = ranking.hits.len();
        }));
    }
    (median(reads), median(searches), hits)
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_unstable_by(f64::total_cmp);
    runs.get(RUNS / 2).copied().unwrap_or_default()
}

/// Seconds that `work` takes, of enough rounds for a processor clock that ticks every few milliseconds.
fn timed(mut work: impl FnMut()) -> f64 {
    let (begin, busy) = (Instant::now(), processor_time());
    for _ in 0..ROUNDS {
        work();
    }
    let spent = match (busy, processor_time()) {
        (Some(before), Some(after)) => after - before,
        _ => begin.elapsed(),
    };
    spent.as_secs_f64() / f64::from(ROUNDS)
}

/// Reads a body as the sidecar does: each row is written, looked at and forgotten.
fn read(filter: &Arc<RowFilter>, body: &[u8], mut each: impl FnMut(&[u8], &RowReader)) {
    let at = RowsAt::rows(&MemberPath::parse("rows").unwrap());
    let mut reader = RowReader::new(Arc::clone(filter), at);
    let mut chunks = body.chunks(CHUNK);
    let mut out = Vec::new();
    loop {
        out.clear();
        match reader.step(&mut out).unwrap() {
            Step::Row => each(&out, &reader),
            Step::NeedInput => match chunks.next() {
                Some(chunk) => reader.push(chunk),
                None => reader.close(),
            },
            Step::End => break,
            step => unreachable!("every row passes, not {step:?}"),
        }
    }
}

/// Rows of 1 KiB: a short text, and a long one with line breaks in it.
fn body(word: Spelling) -> Vec<u8> {
    let rows: Vec<String> = (0..ROWS)
        .map(|i| {
            let mut text = word(0);
            for k in 0.. {
                if text.len() > 800 {
                    break;
                }
                // The square of a uniform draw: early words are frequent, late ones rare.
                let draw = mix(i * 1_000 + k) % VOCABULARY;
                text.push_str(if k % 12 == 11 { "\\n" } else { " " });
                text.push_str(&word(draw * draw / VOCABULARY));
            }
            let id = mix(!i);
            format!(
                "{{\"id\":\"{:08x}-{:04x}-4000-8000-{:012x}\",\"createdAt\":\"2026-01-{:02}T12:{:02}:{:02}.000Z\",\
                 \"ownerId\":\"user-e1\",\"teamId\":\"team-platform\",\"title\":\"item {i:06}\",\"status\":\"open\",\
                 \"description\":\"{text}\"}}",
                id >> 32, id >> 16 & 0xffff, id >> 16, 28 - i % 28, i / 60 % 60, i % 60
            )
        })
        .collect();
    let body = format!("{{\"rows\":[{}]}}", rows.join(","));
    let average = body.len() as f64 / ROWS as f64;
    assert!((950.0..1_150.0).contains(&average), "{average} bytes a row");
    body.into_bytes()
}

/// A made-up word for a number: consonants and vowels in turn.
fn spelled(word: u64, vowels: &str) -> String {
    let vowels: Vec<char> = vowels.chars().collect();
    let consonants: Vec<char> = "bdfgklmnprstvz".chars().collect();
    let mut bits = mix(word ^ 0x5eed);
    let mut text = String::new();
    for _ in 0..3 {
        text.push(consonants[usize::try_from(bits % 14).unwrap()]);
        bits /= 14;
        text.push(vowels[usize::try_from(bits % 5).unwrap()]);
        bits /= 5;
    }
    text
}

/// A letter of the same sort from another alphabet.
fn cyrillic(letter: char) -> char {
    char::from_u32(u32::from(letter) - u32::from('a') + u32::from('а')).unwrap()
}
