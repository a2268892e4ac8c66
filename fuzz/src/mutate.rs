//! Small changes to an input, from a number: what the tests use where libFuzzer is not at hand.

/// Pieces that parsers treat specially.
const PIECES: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"1e999",
    b"-0",
    b"\x00",
    b"\xff",
    b"\xc3\x28",
    b"\r\n",
    b"\n ",
    b"=",
    b"#",
    b"'''",
    b"../",
    b"%00",
    b"\"password\":\"x\"",
    b"\"teamId\":\"team-other\"",
    b"\"ownerId\":\"user-e2\"",
    b"\x0c\x24",
    b"\x30\x82\xff\xff",
    b"Content-Length: 1\r\n",
    b"_source",
];

/// A stream of numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(x % bound).unwrap_or(0)
    }
}

/// Changes `input` in one to four places; `other` is what pieces are taken from besides.
#[must_use]
pub fn mutate(input: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(out.len() + 1);
        let to = at + numbers.below((out.len() - at).min(32) + 1);
        match numbers.below(6) {
            0 if at < out.len() => out[at] ^= 1 << numbers.below(8),
            1 => drop(out.drain(at..to)),
            2 => {
                let piece = PIECES[numbers.below(PIECES.len())];
                drop(out.splice(at..to, piece.iter().copied()));
            }
            3 => {
                let again = out[at..to].to_vec();
                drop(out.splice(at..at, again));
            }
            4 => {
                let from = numbers.below(other.len() + 1);
                let until = from + numbers.below((other.len() - from).min(64) + 1);
                drop(out.splice(at..to, other[from..until].iter().copied()));
            }
            _ => out.truncate(at.max(out.len() / 2)),
        }
    }
    out
}
