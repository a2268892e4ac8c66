//! One pass over a row that lies whole in memory: checked, its marked values found, its cuts listed.
//!
//! Invariant: accepts no row that `walk.rs` refuses. It says `None` to everything else, including a row cut short,
//! without a reason: the walker gives that. Rows of one answer look alike, so each name is first compared with the
//! name at the same place of the row before, as bytes.
//! Elsewhere on purpose: which names matter (`fields.rs`), what the values mean (`filter.rs`), writing the row
//! (`write.rs`).

use super::fields::{Fate, Fields, MAX_SLOTS, Member, NO_SLOT, Slot};
use super::mark::{Cut, Kind, Mark};
use super::memo::Memo;
use super::predict::Shape;
use super::redact::PathTree;
use super::walk::MAX_DEPTH;
use super::{lanes, text};

/// The scanner, and what it found in the row scanned last.
#[derive(Debug)]
pub(super) struct Scanner {
    shape: Shape,
    names: Memo<Member>,
    marks: [Mark; MAX_SLOTS],
    seen: u32,
    twice: u32,
    beyond_ascii: bool,
    /// In order, without overlap.
    pub(super) cuts: Vec<Cut>,
    /// Where the first member begins.
    pub(super) first: usize,
    /// Whether any member stays.
    pub(super) keeps_any: bool,
    /// Members removed by the rules of redaction.
    pub(super) redacted: u64,
}

impl Scanner {
    pub(super) const fn new() -> Self {
        Self {
            shape: Shape::new(),
            names: Memo::new(),
            marks: [Mark::NONE; MAX_SLOTS],
            seen: 0,
            twice: 0,
            beyond_ascii: false,
            cuts: Vec::new(),
            first: 0,
            keeps_any: false,
            redacted: 0,
        }
    }

    /// The value marked for `slot`, when the row has exactly one.
    #[inline]
    pub(super) fn only(&self, slot: Slot) -> Option<Mark> {
        let bit = 1u32.checked_shl(slot.into()).unwrap_or_default();
        if self.seen & !self.twice & bit == 0 {
            return None;
        }
        self.marks.get(usize::from(slot)).copied()
    }

    /// Whether the row has several members for any of the slots in `mask`.
    #[inline]
    pub(super) const fn any_twice(&self, mask: u32) -> bool {
        self.twice & mask != 0
    }

    /// Scans the object at the start of `input`, which lies inside `depth` containers, and returns its length.
    ///
    /// On `None` the marks set so far stay: they are what a row too large to be read whole can be known by.
    #[inline]
    pub(super) fn scan(&mut self, fields: &Fields, input: &[u8], depth: u8) -> Option<usize> {
        self.seen = 0;
        self.twice = 0;
        self.beyond_ascii = false;
        self.cuts.clear();
        self.keeps_any = false;
        self.redacted = 0;
        if input.first() != Some(&b'{') || depth >= MAX_DEPTH {
            return None;
        }
        let mut scan = Scan {
            found: self,
            fields,
            input,
        };
        let length = scan.row(depth + 1)?;
        if self.beyond_ascii {
            simdutf8::basic::from_utf8(input.get(..length)?).ok()?;
        }
        Some(length)
    }

    #[inline]
    fn mark(&mut self, slot: Slot, mark: Mark) {
        if let Some(place) = self.marks.get_mut(usize::from(slot)) {
            let bit = 1u32 << (slot & 31);
            self.twice |= self.seen & bit;
            self.seen |= bit;
            *place = mark;
        }
    }
}

/// A pass in progress. All positions count from the start of the row.
struct Scan<'a> {
    found: &'a mut Scanner,
    fields: &'a Fields,
    input: &'a [u8],
}

impl Scan<'_> {
    #[inline]
    fn row(&mut self, depth: u8) -> Option<usize> {
        let mut at = self.space(1);
        self.found.first = at;
        if *self.input.get(at)? == b'}' {
            return Some(at + 1);
        }
        let mut comma = at;
        let mut place = 0;
        loop {
            let begin = at;
            let (member, value) = match self.found.shape.predicted(&mut place, self.input, at) {
                Some(found) => found,
                None => self.learn(&mut place, at)?,
            };
            let cut = member.fate != Fate::Keep;
            let mark = self.value(value, member.below, depth, cut)?;
            if member.slot != NO_SLOT {
                self.found.mark(member.slot, mark);
            }
            at = self.space(mark.after());
            let leading = !self.found.keeps_any;
            if cut {
                self.cut(
                    member.fate,
                    if leading { begin } else { comma },
                    mark.after(),
                );
            } else {
                self.found.keeps_any = true;
            }
            match *self.input.get(at)? {
                b',' => {
                    comma = at;
                    at = self.space(at + 1);
                    if cut && leading {
                        self.stretch_cut(at);
                    }
                }
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// Reads the name at `at` the long way and remembers it for the same place in the next row.
    #[cold]
    fn learn(&mut self, place: &mut usize, at: usize) -> Option<(Member, usize)> {
        let (member, value) = self.name(at, PathTree::ROOT)?;
        let spelling = self.input.get(at..value)?;
        self.found.shape.learn(*place, spelling, member);
        *place += 1;
        Some((member, value))
    }

    /// The name at `at` in the object at `below` in the tree of redaction paths, and where its value begins.
    fn name(&mut self, at: usize, below: u16) -> Option<(Member, usize)> {
        if *self.input.get(at)? != b'"' {
            return None;
        }
        let (end, escaped) = self.string(at + 1)?;
        let colon = self.space(end + 1);
        if *self.input.get(colon)? != b':' {
            return None;
        }
        let raw = self.input.get(at + 1..end)?;
        let member = match self.found.names.find(below, raw) {
            Some(member) => member,
            None => {
                let member = self.fields.member(below, &text::decode(raw, escaped)?);
                self.found.names.store(below, raw, member);
                member
            }
        };
        Some((member, self.space(colon + 1)))
    }

    #[inline]
    fn value(&mut self, at: usize, below: u16, depth: u8, passed_over: bool) -> Option<Mark> {
        let mut at = at;
        loop {
            let (kind, start, end) = match *self.input.get(at)? {
                b'"' => {
                    let (end, escaped) = self.string(at + 1)?;
                    let kind = if escaped { Kind::Escaped } else { Kind::Plain };
                    (kind, at + 1, end)
                }
                b'n' => (Kind::Null, at, self.literal(at, b"null")?),
                b't' => (Kind::Other, at, self.literal(at, b"true")?),
                b'f' => (Kind::Other, at, self.literal(at, b"false")?),
                b'-' | b'0'..=b'9' => {
                    let (end, whole) = number(self.input, at)?;
                    let kind = if whole { Kind::Integer } else { Kind::Other };
                    (kind, at, end)
                }
                b'{' => (
                    Kind::Other,
                    at,
                    self.object(at + 1, below, depth, passed_over)?,
                ),
                b'[' => (
                    Kind::Other,
                    at,
                    self.array(at + 1, below, depth, passed_over)?,
                ),
                b' ' | b'\t' | b'\n' | b'\r' => {
                    at = self.space(at);
                    continue;
                }
                _ => return None,
            };
            return Some(Mark { start, end, kind });
        }
    }

    fn object(&mut self, at: usize, below: u16, depth: u8, passed_over: bool) -> Option<usize> {
        if depth >= MAX_DEPTH {
            return None;
        }
        let mut at = self.space(at);
        if *self.input.get(at)? == b'}' {
            return Some(at + 1);
        }
        let mut comma = at;
        let mut keeps_any = false;
        loop {
            let begin = at;
            let (member, value) = self.name(at, below)?;
            let member = if passed_over {
                Member::PASSED_OVER
            } else {
                member
            };
            let cut = member.fate != Fate::Keep;
            let mark = self.value(value, member.below, depth + 1, passed_over || cut)?;
            let leading = !keeps_any;
            if cut {
                self.cut(
                    member.fate,
                    if leading { begin } else { comma },
                    mark.after(),
                );
            } else {
                keeps_any = true;
            }
            at = self.space(mark.after());
            match *self.input.get(at)? {
                b',' => {
                    comma = at;
                    at = self.space(at + 1);
                    if cut && leading {
                        self.stretch_cut(at);
                    }
                }
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn array(&mut self, at: usize, below: u16, depth: u8, passed_over: bool) -> Option<usize> {
        if depth >= MAX_DEPTH {
            return None;
        }
        let mut at = self.space(at);
        if *self.input.get(at)? == b']' {
            return Some(at + 1);
        }
        loop {
            let mark = self.value(at, below, depth + 1, passed_over)?;
            at = self.space(mark.after());
            match *self.input.get(at)? {
                b',' => at = self.space(at + 1),
                b']' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// The closing quote of the string whose first byte is at `at`, and whether it has escapes.
    #[inline]
    fn string(&mut self, at: usize) -> Option<(usize, bool)> {
        let stop = lanes::plain_ascii(self.input, at);
        if *self.input.get(stop)? == b'"' {
            return Some((stop, false));
        }
        self.rough_string(stop)
    }

    #[cold]
    fn rough_string(&mut self, mut at: usize) -> Option<(usize, bool)> {
        let mut escaped = false;
        loop {
            match *self.input.get(at)? {
                b'"' => return Some((at, escaped)),
                b'\\' => {
                    escaped = true;
                    at = text::escape(self.input, at)?;
                }
                0x80.. => self.found.beyond_ascii = true,
                _ => return None,
            }
            // Until a byte beyond ASCII was met, the run must stop at the first one.
            at = if self.found.beyond_ascii {
                lanes::plain_text(self.input, at)
            } else {
                lanes::plain_ascii(self.input, at)
            };
        }
    }

    #[inline]
    fn literal(&self, at: usize, literal: &[u8]) -> Option<usize> {
        let end = at + literal.len();
        (self.input.get(at..end)? == literal).then_some(end)
    }

    #[inline]
    fn space(&self, at: usize) -> usize {
        match self.input.get(at) {
            Some(0..=b' ') => self.long_space(at),
            _ => at,
        }
    }

    #[cold]
    fn long_space(&self, mut at: usize) -> usize {
        while matches!(self.input.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    #[cold]
    fn cut(&mut self, fate: Fate, start: usize, end: usize) {
        self.found.cuts.push(Cut { start, end });
        self.found.redacted += u64::from(fate == Fate::Redact);
    }

    /// Nothing before the cut stays, so it takes the comma after it too.
    #[cold]
    fn stretch_cut(&mut self, end: usize) {
        if let Some(cut) = self.found.cuts.last_mut() {
            cut.end = end;
        }
    }
}

/// The end of the number at `at`, and whether it is whole. A number always has something after it in an object.
fn number(input: &[u8], at: usize) -> Option<(usize, bool)> {
    let digits = |from: usize| {
        let count = input
            .get(from..)?
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        (count > 0).then_some(from + count)
    };
    let mut whole = true;
    let mut at = at + usize::from(*input.get(at)? == b'-');
    at = if *input.get(at)? == b'0' {
        at + 1
    } else {
        digits(at)?
    };
    if *input.get(at)? == b'.' {
        whole = false;
        at = digits(at + 1)?;
    }
    if matches!(*input.get(at)?, b'e' | b'E') {
        whole = false;
        let sign = usize::from(matches!(*input.get(at + 1)?, b'+' | b'-'));
        at = digits(at + 1 + sign)?;
    }
    input.get(at).map(|_| (at, whole))
}
