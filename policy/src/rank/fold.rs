//! Text made equal where case does not matter, and where words begin and end in it.
//!
//! Invariant: folding looks at one character at a time, so a part of a text folds to a part of the folded text; that
//! is what lets a whole row be looked through before it is taken apart. Elsewhere on purpose: which words are looked
//! for (`query.rs`), where they are looked for (`matcher.rs`).

use std::sync::LazyLock;

use unicode_normalization::char::is_combining_mark;

/// What a character is to the words around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It parts words.
    Separator,
    /// It belongs to a word that goes on until something parts it.
    Spaced,
    /// It belongs to a script that is written without spaces: words begin and end anywhere.
    Unspaced,
}

impl Class {
    #[inline]
    pub(super) fn of(character: char) -> Self {
        if character.is_ascii() {
            return if character.is_ascii_alphanumeric() {
                Self::Spaced
            } else {
                Self::Separator
            };
        }
        if !character.is_alphanumeric() && !is_combining_mark(character) {
            Self::Separator
        } else if is_unspaced(character) {
            Self::Unspaced
        } else {
            Self::Spaced
        }
    }
}

/// Han, kana, and the scripts of South-East Asia that do not part words.
const fn is_unspaced(character: char) -> bool {
    matches!(character,
        '\u{0e00}'..='\u{0fff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{3005}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}'
        | '\u{20000}'..='\u{3ffff}')
}

/// Whether a word can begin or end between two characters; the text's ends are `None`.
#[inline]
pub(super) fn parts(left: Option<char>, right: Option<char>) -> bool {
    let class = |side: Option<char>| side.map_or(Class::Separator, Class::of);
    !(class(left) == Class::Spaced && class(right) == Class::Spaced)
}

/// Characters below this are folded by a table.
const TABLE: usize = 0x600;
/// Bytes looked at together in a text with characters beyond ASCII.
const STRIDE: usize = 32;

/// The folded form of the first characters, where it is one character.
static FOLDED: LazyLock<Vec<Option<char>>> = LazyLock::new(|| {
    (0..TABLE)
        .map(|code| {
            let character = u32::try_from(code).ok().and_then(char::from_u32)?;
            let mut folded = full(character);
            let first = folded.next()?;
            folded.next().is_none().then_some(first)
        })
        .collect()
});

/// Upper case and back: what full case folding does (`ß` is `ss`, `ς` is `σ`), one character at a time.
fn full(character: char) -> impl Iterator<Item = char> {
    character.to_uppercase().flat_map(char::to_lowercase)
}

/// Whether a character certainly has no case: most of what is not in an alphabet.
const fn is_caseless(character: char) -> bool {
    matches!(character, '\u{2e80}'..='\u{a63f}' | '\u{ac00}'..='\u{d7ff}' | '\u{20000}'..)
}

fn push(character: char, out: &mut String) {
    if character.is_ascii() {
        out.push(character.to_ascii_lowercase());
        return;
    }
    if is_caseless(character) {
        out.push(character);
        return;
    }
    let known = usize::try_from(u32::from(character))
        .ok()
        .and_then(|code| FOLDED.get(code))
        .copied()
        .flatten();
    match known {
        Some(folded) => out.push(folded),
        None => out.extend(full(character)),
    }
}

/// Appends the folded form of `text`.
pub(super) fn fold(text: &str, out: &mut String) {
    let mut rest = text;
    while !rest.is_empty() {
        // Stretches of ASCII, which most texts have, are folded together.
        let plain = rest
            .as_bytes()
            .chunks(STRIDE)
            .take_while(|chunk| chunk.is_ascii())
            .map(<[u8]>::len)
            .sum();
        let Some((stretch, more)) = rest.split_at_checked(plain) else {
            return;
        };
        let begin = out.len();
        out.push_str(stretch);
        if let Some(stretch) = out.get_mut(begin..) {
            stretch.make_ascii_lowercase();
        }
        rest = more;
        let end = rest
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| *at >= STRIDE)
            .unwrap_or(rest.len());
        let Some((mixed, more)) = rest.split_at_checked(end) else {
            return;
        };
        for character in mixed.chars() {
            push(character, out);
        }
        rest = more;
    }
}

/// The folded form of `text`.
pub(super) fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    fold(text, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_does_not_matter_in_any_script() {
        for (one, other) in [
            ("Straße", "STRASSE"),
            ("ΟΔΟΣ", "οδος"),
            ("οδός", "ΟΔΌΣ"),
            ("Ёлка", "ёЛКА"),
            ("ﬁne", "FINE"),
            ("\u{212a}elvin", "kelvin"),
            ("大きさ", "大きさ"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        assert_ne!(folded("résumé"), folded("resume"), "accents do matter");
    }

    #[test]
    fn words_part_where_a_reader_would_part_them() {
        for (left, right, expected) in [
            ('a', 'b', false),
            ('a', '1', false),
            ('a', '_', true),
            ('a', ' ', true),
            ('é', 'a', false),
            ('e', '\u{301}', false),
            ('大', 'き', true),
            ('a', '大', true),
            ('。', '大', true),
            ('한', '국', false),
        ] {
            assert_eq!(parts(Some(left), Some(right)), expected, "{left}{right}");
        }
        assert!(parts(None, Some('a')) && parts(Some('a'), None));
    }

    proptest! {
        #[test]
        fn folding_looks_at_one_character_at_a_time(a in "\\PC{0,40}", b in "\\PC{0,40}") {
            prop_assert_eq!(folded(&format!("{a}{b}")), folded(&a) + &folded(&b));
            let by_character: String = a.chars().flat_map(full).collect();
            prop_assert_eq!(folded(&a), by_character);
        }

        #[test]
        fn a_folded_text_stays_as_it_is(text in "[a-zA-Zß-ÿÀ-Þα-ωΑ-Ωа-яА-Я0-9 ]{0,40}") {
            prop_assert_eq!(folded(&folded(&text)), folded(&text));
        }
    }
}
