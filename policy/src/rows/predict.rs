//! The names of the row before, in order: rows of one answer look alike.
//!
//! Invariant: a prediction holds only when the input has exactly the bytes learnt, from the opening quote of the name
//! to the value, so it never says anything that reading the name would not.
//! Elsewhere on purpose: reading names (`scan.rs`) and judging them (`fields.rs`).

use super::fields::Member;

/// Most names learnt; rows with more go the long way after them.
const PLACES: usize = 64;
/// Longest spelling learnt.
const LONGEST: usize = 80;
/// Bytes compared in one go.
const HEAD: usize = 16;

/// The names of the top-level members of the row before.
#[derive(Debug)]
pub(super) struct Shape {
    names: Vec<Spelling>,
}

#[derive(Debug)]
struct Spelling {
    head: u128,
    mask: u128,
    length: usize,
    tail: Vec<u8>,
    member: Member,
}

impl Shape {
    pub(super) const fn new() -> Self {
        Self { names: Vec::new() }
    }

    /// What is known of the name at `at`, and where its value begins. `place` counts the names of the row; a row may
    /// lack one that the row before had.
    #[inline]
    pub(super) fn predicted(
        &self,
        place: &mut usize,
        input: &[u8],
        at: usize,
    ) -> Option<(Member, usize)> {
        let rest = input.get(at..)?;
        let expected = self.names.get(*place)?;
        if expected.begins(rest) {
            *place += 1;
            return Some((expected.member, at + expected.length));
        }
        let expected = self.names.get(*place + 1)?;
        if expected.begins(rest) {
            *place += 2;
            return Some((expected.member, at + expected.length));
        }
        None
    }

    /// Remembers the name at `place`: `spelling` goes from the opening quote to the value.
    pub(super) fn learn(&mut self, place: usize, spelling: &[u8], member: Member) {
        if spelling.len() > LONGEST || place >= PLACES {
            return;
        }
        if let Some(known) = self.names.get_mut(place) {
            known.spell(spelling, member);
        } else if place == self.names.len() {
            let mut new = Spelling {
                head: 0,
                mask: 0,
                length: 0,
                tail: Vec::new(),
                member,
            };
            new.spell(spelling, member);
            self.names.push(new);
        }
    }
}

impl Spelling {
    #[inline]
    fn begins(&self, rest: &[u8]) -> bool {
        let Some(head) = rest.first_chunk::<HEAD>() else {
            return false;
        };
        (u128::from_le_bytes(*head) ^ self.head) & self.mask == 0
            && (self.length <= HEAD || rest.get(HEAD..self.length) == Some(&*self.tail))
    }

    fn spell(&mut self, spelling: &[u8], member: Member) {
        let mut head = [0; HEAD];
        let mut mask = [0; HEAD];
        for ((head, mask), byte) in head.iter_mut().zip(&mut mask).zip(spelling) {
            (*head, *mask) = (*byte, u8::MAX);
        }
        self.head = u128::from_le_bytes(head);
        self.mask = u128::from_le_bytes(mask);
        self.length = spelling.len();
        self.tail.clear();
        self.tail
            .extend_from_slice(spelling.get(HEAD..).unwrap_or_default());
        self.member = member;
    }
}
