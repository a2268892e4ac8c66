//! How often each term occurs in a row.
//!
//! Invariant: the quick look through the whole row may only say "perhaps" too often, never "no" wrongly: folding works
//! on single characters, so a word in a string of the row is also in the folded row, unless it is spelled with `\u`.
//! Elsewhere on purpose: words and folding (`fold.rs`), the strings of a row (`visible.rs`).

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::fold::{fold, parts};
use super::query::{Query, Term, Word};
use super::visible::{Unsearched, strings};

/// How a character of a word can hide from the look through the row as it is.
static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u"));

/// Room for folded text, used again for every row.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    text: String,
}

/// Counts the occurrences of each term in the searchable text of `row`; false when there are none, and `counts` is
/// then as it was.
pub(super) fn count(
    query: &Query,
    row: &[u8],
    unsearched: &Unsearched,
    scratch: &mut Scratch,
    counts: &mut Vec<u32>,
) -> bool {
    if !may_match(query, row, scratch) {
        return false;
    }
    let begin = counts.len();
    counts.resize(begin + query.len(), 0);
    let mut any = false;
    strings(row, unsearched, |text| {
        scratch.text.clear();
        fold(text, &mut scratch.text);
        let counts = counts.iter_mut().skip(begin);
        for (term, count) in query.terms().iter().zip(counts) {
            let found = occurrences(term, &scratch.text);
            any |= found > 0;
            *count = count.saturating_add(found);
        }
    });
    if !any {
        counts.truncate(begin);
    }
    any
}

/// False when no term can occur in `row`.
#[inline]
fn may_match(query: &Query, row: &[u8], scratch: &mut Scratch) -> bool {
    if ESCAPE.find(row).is_some() {
        return true;
    }
    let folded = if row.is_ascii() {
        scratch.bytes.clear();
        scratch.bytes.extend_from_slice(row);
        scratch.bytes.make_ascii_lowercase();
        scratch.bytes.as_slice()
    } else {
        // Rows were proven to be UTF-8 when they were read.
        let Ok(text) = simdutf8::basic::from_utf8(row) else {
            return true;
        };
        scratch.text.clear();
        fold(text, &mut scratch.text);
        scratch.text.as_bytes()
    };
    let has = |word: &Word| word.forms.iter().any(|form| form.find(folded).is_some());
    query
        .terms()
        .iter()
        .any(|term| term.words.get(term.rarest).is_some_and(has))
}

/// How often `term` occurs in `text`, which is folded.
fn occurrences(term: &Term, text: &str) -> u32 {
    let Some((first, more)) = term.words.split_first() else {
        return 0;
    };
    let mut found = 0_u32;
    for form in &first.forms {
        for at in form.find_iter(text.as_bytes()) {
            if !parts(last_of(text, at), next_of(text, at)) {
                continue;
            }
            if follow(text, at + form.needle().len(), more, term.prefix) {
                found = found.saturating_add(1);
            }
        }
    }
    found
}

/// Whether the words of `more` follow a word that ends at `at`, with nothing between them that belongs to a word.
fn follow(text: &str, mut at: usize, more: &[Word], prefix: bool) -> bool {
    for word in more {
        if !parts(last_of(text, at), next_of(text, at)) {
            return false;
        }
        at = next_word(text, at);
        let rest = text.as_bytes().get(at..).unwrap_or_default();
        let form = word
            .forms
            .iter()
            .find(|form| rest.starts_with(form.needle()));
        let Some(form) = form else { return false };
        at += form.needle().len();
    }
    prefix || parts(last_of(text, at), next_of(text, at))
}

/// Where the next word at or after `at` begins.
fn next_word(text: &str, at: usize) -> usize {
    use super::fold::Class;
    let rest = text.get(at..).unwrap_or_default();
    let gap = rest.find(|character| Class::of(character) != Class::Separator);
    at + gap.unwrap_or(rest.len())
}

fn last_of(text: &str, at: usize) -> Option<char> {
    text.get(..at)?.chars().next_back()
}

fn next_of(text: &str, at: usize) -> Option<char> {
    text.get(at..)?.chars().next()
}
