//! A small table of answers already worked out, for names and ids that come again in every row.
//!
//! Invariant: the table never grows past its size, whatever the gateway sends, and an answer found is always the one
//! stored under exactly these bytes. A collision only costs working the answer out again.
//! Elsewhere on purpose: the answers themselves (`fields.rs`, `ownership.rs`).

/// Entries of one table; a power of two.
const ENTRIES: usize = 128;
/// Longer keys are not kept: their answers are rare, and memory stays bounded.
const LONGEST: usize = 64;

/// Answers by a number and bytes, direct mapped: an entry is replaced by the next one with its place.
#[derive(Debug)]
pub(super) struct Memo<V> {
    // Empty until the first answer, so that a short body pays little.
    entries: Vec<Option<Entry<V>>>,
}

#[derive(Debug, Clone)]
struct Entry<V> {
    context: u16,
    bytes: Vec<u8>,
    answer: V,
}

impl<V: Copy> Memo<V> {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn find(&self, context: u16, bytes: &[u8]) -> Option<V> {
        let entry = self.entries.get(place(context, bytes))?.as_ref()?;
        (entry.context == context && entry.bytes == bytes).then_some(entry.answer)
    }

    pub(super) fn store(&mut self, context: u16, bytes: &[u8], answer: V) {
        if bytes.len() > LONGEST {
            return;
        }
        if self.entries.is_empty() {
            self.entries.resize_with(ENTRIES, || None);
        }
        let Some(place) = self.entries.get_mut(place(context, bytes)) else {
            return;
        };
        if let Some(entry) = place {
            entry.context = context;
            entry.bytes.clear();
            entry.bytes.extend_from_slice(bytes);
            entry.answer = answer;
        } else {
            *place = Some(Entry {
                context,
                bytes: bytes.to_vec(),
                answer,
            });
        }
    }
}

/// Mixes the ends and the length: names differ at their ends, ids at theirs.
#[inline]
fn place(context: u16, bytes: &[u8]) -> usize {
    let (front, back) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(front), Some(back)) => (u64::from_le_bytes(*front), u64::from_le_bytes(*back)),
        _ => (
            bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
            0,
        ),
    };
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mixed = (front ^ back.rotate_left(29) ^ length.rotate_left(57) ^ u64::from(context))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 57).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_answer_is_the_one_stored_last(
            steps in proptest::collection::vec((0u16..3, "[a-d]{0,12}", any::<u32>()), 0..400),
        ) {
            let mut memo = Memo::new();
            let mut all = std::collections::HashMap::new();
            for (context, key, answer) in steps {
                if let Some(found) = memo.find(context, key.as_bytes()) {
                    prop_assert_eq!(Some(&found), all.get(&(context, key.clone())));
                }
                memo.store(context, key.as_bytes(), answer);
                all.insert((context, key.clone()), answer);
                prop_assert_eq!(memo.find(context, key.as_bytes()), Some(answer));
            }
            prop_assert!(memo.entries.len() <= ENTRIES);
        }
    }

    #[test]
    fn long_keys_are_not_kept() {
        let mut memo = Memo::new();
        memo.store(0, &[b'x'; LONGEST + 1], 1);
        assert_eq!(memo.find(0, &[b'x'; LONGEST + 1]), None);
    }
}
