//! The query of a search: terms, "phrases", and prefixes*.
//!
//! Invariant: a query that parses has at least one word and is bounded, and nothing in it was overlooked: a quote that
//! is not closed or a star that means nothing is refused. A row is a hit when any of the terms occurs in it.
//! Elsewhere on purpose: what a word is (`fold.rs`), looking for it (`matcher.rs`).

use std::sync::Arc;

use memchr::memmem::Finder;
use unicode_normalization::UnicodeNormalization as _;

use super::fold::{Class, folded};

/// Longest query, in bytes.
pub const MAX_QUERY: usize = 1024;
/// Most terms of one query.
pub const MAX_TERMS: usize = 16;
/// Most words of all terms together.
pub const MAX_WORDS: usize = 64;

/// Why a query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Longer than [`MAX_QUERY`].
    #[error("the query is longer than {MAX_QUERY} bytes")]
    TooLong,
    /// No letter and no digit in it.
    #[error("the query has no word in it")]
    NoWord,
    /// More than [`MAX_TERMS`] or [`MAX_WORDS`].
    #[error("the query has more than {MAX_TERMS} terms or {MAX_WORDS} words")]
    TooManyTerms,
    /// A phrase that does not end.
    #[error("the query has a quote that is not closed")]
    OpenQuote,
    /// A star that is not the end of a term.
    #[error("a `*` stands at the end of a term only: `feder*`")]
    StrayStar,
}

/// A parsed query, cheap to share.
#[derive(Clone, Debug)]
pub struct Query {
    terms: Arc<[Term]>,
}

/// One term: a word or a sequence of words, the last of which may be a beginning.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) words: Vec<Word>,
    pub(super) prefix: bool,
    /// Which of the words rows are looked through for first: the longest.
    pub(super) rarest: usize,
    /// As it was written, its words parted by single spaces.
    text: String,
}

/// One word, folded, in the one or two ways in which it can be composed.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) forms: Vec<Finder<'static>>,
}

impl Word {
    fn new(text: &str) -> Self {
        let composed: String = text.nfc().collect();
        let decomposed: String = text.nfd().collect();
        let mut forms = vec![Finder::new(composed.as_bytes()).into_owned()];
        if decomposed != composed {
            forms.push(Finder::new(decomposed.as_bytes()).into_owned());
        }
        Self { forms }
    }
}

impl Query {
    /// Parses a query. Terms are parted by white space; words that are joined by other characters (`AC-9`,
    /// `a@b.example`), and words in quotes, are one term and must follow each other. A term that ends in `*` also
    /// matches longer words.
    ///
    /// # Errors
    /// [`QueryError`] for the first thing wrong.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > MAX_QUERY {
            return Err(QueryError::TooLong);
        }
        let mut parser = Parser::default();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            parser.take(character, rest.peek().copied())?;
        }
        parser.finish()
    }

    pub(super) fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Number of terms.
    #[must_use]
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// Never: a query has at least one term.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The text of each term, its words parted by spaces: what a gateway's own search is asked for.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.text.as_str())
    }
}

#[derive(Default)]
struct Parser {
    terms: Vec<(Vec<String>, bool)>,
    words: Vec<String>,
    word: String,
    class: Option<Class>,
    quoted: bool,
    prefix: bool,
}

impl Parser {
    fn take(&mut self, character: char, next: Option<char>) -> Result<(), QueryError> {
        match character {
            '"' => {
                self.end_term();
                self.quoted = !self.quoted;
            }
            '*' => {
                let ends = match next {
                    None => true,
                    Some('"') => self.quoted,
                    Some(next) => !self.quoted && next.is_whitespace(),
                };
                if self.word.is_empty() || !ends {
                    return Err(QueryError::StrayStar);
                }
                self.prefix = true;
                if !self.quoted {
                    self.end_term();
                }
            }
            _ if character.is_whitespace() && !self.quoted => self.end_term(),
            _ => self.letter(character),
        }
        Ok(())
    }

    fn letter(&mut self, character: char) {
        let class = Class::of(character);
        if class == Class::Separator || self.class.is_some_and(|before| before != class) {
            self.end_word();
        }
        if class != Class::Separator {
            self.word.push(character);
            self.class = Some(class);
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(folded(&self.word));
        }
        self.word.clear();
        self.class = None;
    }

    fn end_term(&mut self) {
        self.end_word();
        let term = (std::mem::take(&mut self.words), self.prefix);
        self.prefix = false;
        if !term.0.is_empty() && !self.terms.contains(&term) {
            self.terms.push(term);
        }
    }

    fn finish(mut self) -> Result<Query, QueryError> {
        if self.quoted {
            return Err(QueryError::OpenQuote);
        }
        self.end_term();
        let words: usize = self.terms.iter().map(|(words, _)| words.len()).sum();
        if self.terms.is_empty() {
            return Err(QueryError::NoWord);
        }
        if self.terms.len() > MAX_TERMS || words > MAX_WORDS {
            return Err(QueryError::TooManyTerms);
        }
        let terms = self.terms.into_iter().map(|(words, prefix)| {
            let longest = words.iter().enumerate().max_by_key(|(_, word)| word.len());
            Term {
                rarest: longest.map_or(0, |(at, _)| at),
                text: words.join(" "),
                words: words.iter().map(|word| Word::new(word)).collect(),
                prefix,
            }
        });
        Ok(Query {
            terms: terms.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn terms(text: &str) -> Vec<String> {
        let query = Query::parse(text).unwrap();
        let star = |term: &Term| if term.prefix { "*" } else { "" };
        query
            .terms()
            .iter()
            .map(|term| format!("{}{}", term.text, star(term)))
            .collect()
    }

    #[test]
    fn terms_phrases_and_prefixes() {
        assert_eq!(terms("Rate limit"), ["rate", "limit"]);
        assert_eq!(terms("\"rate limit\" feder*"), ["rate limit", "feder*"]);
        assert_eq!(terms("AC-9 a@b.example"), ["ac 9", "a b example"]);
        assert_eq!(terms("\"to be*\""), ["to be*"]);
        assert_eq!(terms("AC-1*"), ["ac 1*"]);
        assert_eq!(terms("snake_case Größe"), ["snake case", "grösse"]);
        assert_eq!(terms("word 大きさ大 word"), ["word", "大きさ大"]);
        assert_eq!(terms("v2大"), ["v2 大"]);
        assert_eq!(terms("\"\" ... x"), ["x"]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (text, error) in [
            ("", QueryError::NoWord),
            (" \t-- !?", QueryError::NoWord),
            ("\"a b", QueryError::OpenQuote),
            ("*", QueryError::StrayStar),
            ("a *", QueryError::StrayStar),
            ("a*b", QueryError::StrayStar),
            ("\"a* b\"", QueryError::StrayStar),
            ("a**", QueryError::StrayStar),
        ] {
            assert_eq!(Query::parse(text).err(), Some(error), "{text}");
        }
    }

    #[test]
    fn queries_are_bounded() {
        let fits = "c".repeat(MAX_QUERY);
        assert_eq!(Query::parse(&fits).unwrap().len(), 1);
        assert_eq!(
            Query::parse(&"c".repeat(MAX_QUERY + 1)).err(),
            Some(QueryError::TooLong)
        );
        let numbered = |count: usize| -> String { (0..count).map(|n| format!("t{n} ")).collect() };
        assert_eq!(Query::parse(&numbered(MAX_TERMS)).unwrap().len(), MAX_TERMS);
        assert_eq!(
            Query::parse(&numbered(MAX_TERMS + 1)).err(),
            Some(QueryError::TooManyTerms)
        );
        let phrase = format!("\"{}\"", numbered(MAX_WORDS + 1));
        assert_eq!(Query::parse(&phrase).err(), Some(QueryError::TooManyTerms));
    }
}
