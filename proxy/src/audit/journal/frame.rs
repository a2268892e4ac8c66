//! Records framed in a segment: length, checksum, number, kind, payload.
//!
//! Invariant: a frame is read only whole, with a matching checksum and exactly the expected number; what an earlier use of the
//! segment left behind has smaller numbers and is never taken for a record. Frames are aligned to eight bytes.

/// Bytes before the payload.
pub(super) const HEADER: usize = 24;

const LENGTH: std::ops::Range<usize> = 0..4;
const CHECKSUM: std::ops::Range<usize> = 4..8;
const NUMBER: std::ops::Range<usize> = 8..16;
const KIND: usize = 16;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// An exchange is about to show something outside.
    Intent,
    /// An exchange, or an act, is over.
    Outcome,
    /// Nothing: written to see whether writing works again.
    Probe,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::Intent => 1,
            Self::Outcome => 2,
            Self::Probe => 3,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Intent),
            2 => Some(Self::Outcome),
            3 => Some(Self::Probe),
            _ => None,
        }
    }
}

/// Bytes that a frame with this payload takes.
pub(super) const fn size(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(8)
}

/// Replaces the contents of `out` with a frame.
pub(super) fn encode(kind: FrameKind, number: u64, payload: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let number = number.to_le_bytes();
    let kind = [kind.code(), 0, 0, 0, 0, 0, 0, 0];
    let mut checksum = crc32fast::Hasher::new();
    for part in [&number[..], &kind, payload] {
        checksum.update(part);
    }
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum.finalize().to_le_bytes());
    out.extend_from_slice(&number);
    out.extend_from_slice(&kind);
    out.extend_from_slice(payload);
    out.resize(size(payload.len()), 0);
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A whole frame.
    Frame {
        /// What it holds.
        kind: FrameKind,
        /// Its payload.
        payload: &'a [u8],
        /// Bytes to the next one.
        size: usize,
    },
    /// A frame whose bytes were damaged, with a whole one behind it.
    Damaged {
        /// Bytes to the next one.
        size: usize,
    },
    /// No frame: the end, or one that was never written to its end.
    End,
}

/// Reads what stands at the beginning of `bytes`, where frame `number` is expected.
pub(super) fn read(bytes: &[u8], number: u64) -> Step<'_> {
    match whole(bytes, number) {
        Some((kind, payload)) => Step::Frame {
            kind,
            payload,
            size: size(payload.len()),
        },
        None => {
            let behind = claimed_size(bytes, number).and_then(|size| {
                let next = number.checked_add(1)?;
                Some((size, whole(bytes.get(size..)?, next)?))
            });
            behind.map_or(Step::End, |(size, _)| Step::Damaged { size })
        }
    }
}

/// The size a frame claims to have, if it claims to be the expected one.
fn claimed_size(bytes: &[u8], number: u64) -> Option<usize> {
    let claimed = u64::from_le_bytes(bytes.get(NUMBER)?.try_into().ok()?);
    let length = u32::from_le_bytes(bytes.get(LENGTH)?.try_into().ok()?);
    (claimed == number).then_some(size(usize::try_from(length).ok()?))
}

fn whole(bytes: &[u8], number: u64) -> Option<(FrameKind, &[u8])> {
    let size = claimed_size(bytes, number)?;
    let length = u32::from_le_bytes(bytes.get(LENGTH)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let checksum = u32::from_le_bytes(bytes.get(CHECKSUM)?.try_into().ok()?);
    let covered = bytes.get(NUMBER.start..HEADER.checked_add(length)?)?;
    if crc32fast::hash(covered) != checksum || size > bytes.len() {
        return None;
    }
    let kind = FrameKind::of(*bytes.get(KIND)?)?;
    Some((kind, bytes.get(HEADER..HEADER.checked_add(length)?)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn segment(payloads: &[Vec<u8>], first: u64) -> (Vec<u8>, Vec<usize>) {
        let (mut all, mut one, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for (payload, number) in payloads.iter().zip(first..) {
            encode(FrameKind::Outcome, number, payload, &mut one);
            starts.push(all.len());
            all.extend_from_slice(&one);
        }
        (all, starts)
    }

    /// Payloads read from the beginning to the end.
    fn scan(bytes: &[u8], first: u64) -> (Vec<Option<Vec<u8>>>, usize) {
        let (mut found, mut at) = (Vec::new(), 0);
        for number in first.. {
            match read(&bytes[at..], number) {
                Step::Frame { payload, size, .. } => {
                    found.push(Some(payload.to_vec()));
                    at += size;
                }
                Step::Damaged { size } => {
                    found.push(None);
                    at += size;
                }
                Step::End => break,
            }
        }
        (found, at)
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn frames_read_back_and_the_end_is_found(payloads in payloads(), first in 1..u64::MAX / 2, rest in 0..64_usize) {
            let (mut bytes, _) = segment(&payloads, first);
            let end = bytes.len();
            bytes.resize(end + rest, 0);
            let (found, at) = scan(&bytes, first);
            prop_assert_eq!(at, end);
            prop_assert_eq!(found.into_iter().map(Option::unwrap).collect::<Vec<_>>(), payloads);
        }

        #[test]
        fn a_torn_tail_costs_only_the_frames_it_touches(payloads in payloads(), cut in any::<prop::sample::Index>()) {
            let (bytes, starts) = segment(&payloads, 7);
            let cut = cut.index(bytes.len());
            let (found, _) = scan(&bytes[..cut], 7);
            // Every frame that lies wholly before the cut, and nothing else.
            let ends = starts[1..].iter().copied().chain([bytes.len()]);
            let whole = ends.filter(|end| *end <= cut).count();
            prop_assert_eq!(found.len(), whole);
            for (got, put) in found.iter().zip(&payloads) {
                prop_assert_eq!(got.as_ref(), Some(put));
            }
        }

        #[test]
        fn a_flipped_bit_is_never_read_as_a_record(payloads in payloads(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let (mut bytes, starts) = segment(&payloads, 1);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let hit = starts.iter().filter(|start| **start <= at).count() - 1;
            let (found, _) = scan(&bytes, 1);
            for (place, got) in found.iter().enumerate() {
                match got {
                    Some(got) => prop_assert_eq!(got, &payloads[place]),
                    None => prop_assert_eq!(place, hit),
                }
            }
            // Padding is not covered; everything else is noticed.
            let padding = at >= starts[hit] + HEADER + payloads[hit].len();
            prop_assert!(padding || found.get(hit).is_none_or(Option::is_none));
        }

        #[test]
        fn what_an_earlier_use_left_behind_is_not_read(old in payloads(), new in payloads()) {
            let (mut bytes, _) = segment(&old, 1);
            let (fresh, _) = segment(&new, 1000);
            let end = fresh.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[..end].copy_from_slice(&fresh);
            let (found, at) = scan(&bytes, 1000);
            prop_assert_eq!(at, end);
            prop_assert_eq!(found.len(), new.len());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), number in any::<u64>()) {
            let _ = read(&bytes, number);
        }
    }
}
