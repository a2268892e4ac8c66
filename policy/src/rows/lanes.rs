//! Skipping plain string bytes sixteen at a time, in two general registers.
//!
//! Invariant: agrees with the byte-wise definition in the tests. Vector registers would need unsafe code, and most
//! strings of a row end within two blocks.
//! Elsewhere on purpose: what a byte that stops the run means (`scan.rs`, `walk.rs`).

const WIDTH: usize = 16;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The first position at or after `at` of a quote, a backslash, a control character or a byte outside ASCII, else
/// the length of `input`.
#[inline(always)]
pub(super) fn plain_ascii(input: &[u8], at: usize) -> usize {
    run::<true>(input, at)
}

/// As [`plain_ascii`], but bytes outside ASCII do not stop the run.
#[inline(always)]
pub(super) fn plain_text(input: &[u8], at: usize) -> usize {
    run::<false>(input, at)
}

#[inline(always)]
fn run<const ASCII: bool>(input: &[u8], mut at: usize) -> usize {
    while let Some(block) = input.get(at..).and_then(|rest| rest.first_chunk::<WIDTH>()) {
        if let Some(offset) = first_stop::<ASCII>(block) {
            return at + offset;
        }
        at += WIDTH;
    }
    while input.get(at).is_some_and(|byte| !stops::<ASCII>(*byte)) {
        at += 1;
    }
    at
}

#[inline(always)]
const fn stops<const ASCII: bool>(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..=0x1f) || (ASCII && !byte.is_ascii())
}

/// The first byte of the block that stops the run: both words are looked at, without a branch between them.
#[inline(always)]
fn first_stop<const ASCII: bool>(block: &[u8; WIDTH]) -> Option<usize> {
    let (low, high) = (block.first_chunk::<8>()?, block.last_chunk::<8>()?);
    let low = marks::<ASCII>(u64::from_le_bytes(*low));
    let high = marks::<ASCII>(u64::from_le_bytes(*high));
    if low | high == 0 {
        return None;
    }
    let (word, base) = if low != 0 { (low, 0) } else { (high, 8) };
    Some(base + (word.trailing_zeros() / 8) as usize)
}

/// Sets the high bit of the first byte that stops, and of none before it. Bytes after it may be marked wrongly, by
/// borrows.
#[inline(always)]
const fn marks<const ASCII: bool>(word: u64) -> u64 {
    let quote = (word ^ (ONES * 0x22)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    let control = word.wrapping_sub(ONES * 0x20);
    let any = quote | backslash | control;
    // A byte outside ASCII is marked by itself in one case, and never in the other.
    HIGHS & if ASCII { any | word } else { any & !word }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn by_byte<const ASCII: bool>(input: &[u8], at: usize) -> usize {
        (at..input.len())
            .find(|i| stops::<ASCII>(input[*i]))
            .unwrap_or(input.len())
    }

    #[test]
    fn every_byte_in_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..WIDTH {
                let mut block = [b'a'; WIDTH];
                block[place] = byte;
                let ascii = stops::<true>(byte).then_some(place);
                let text = stops::<false>(byte).then_some(place);
                assert_eq!(first_stop::<true>(&block), ascii);
                assert_eq!(first_stop::<false>(&block), text);
            }
        }
    }

    proptest! {
        #[test]
        fn runs_end_where_bytes_say(
            input in proptest::collection::vec(prop_oneof![8 => 0x20u8..0x7f, 1 => any::<u8>()], 0..80),
            at in 0usize..90,
        ) {
            let at = at.min(input.len());
            prop_assert_eq!(plain_ascii(&input, at), by_byte::<true>(&input, at));
            prop_assert_eq!(plain_text(&input, at), by_byte::<false>(&input, at));
        }
    }
}
