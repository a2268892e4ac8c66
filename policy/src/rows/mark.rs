//! Where things lie in a row: values that matter, and stretches that do not leave.
//!
//! Invariant: positions count from the start of the row and mean something only for the row they were found in.
//! Elsewhere on purpose: finding them (`scan.rs`) and reading them (`filter.rs`, `order.rs`, `write.rs`).

/// What kind of value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string without escapes.
    Plain,
    /// A string with escapes.
    Escaped,
    Null,
    /// A number without fraction and exponent.
    Integer,
    Other,
}

impl Kind {
    const fn is_text(self) -> bool {
        matches!(self, Self::Plain | Self::Escaped)
    }
}

/// Where a value lies in its row; for a string, the bytes between the quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind,
}

impl Mark {
    pub(super) const NONE: Self = Self {
        start: 0,
        end: 0,
        kind: Kind::Other,
    };

    /// The bytes of the value, without quotes.
    #[inline]
    pub(super) fn bytes(self, row: &[u8]) -> &[u8] {
        row.get(self.start..self.end).unwrap_or_default()
    }

    /// The position after the value, the closing quote included.
    #[inline]
    pub(super) fn after(self) -> usize {
        self.end + usize::from(self.kind.is_text())
    }

    /// The position of the value, the opening quote included.
    pub(super) fn before(self) -> usize {
        self.start - usize::from(self.kind.is_text())
    }
}

/// A stretch of the row that does not leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) start: usize,
    pub(super) end: usize,
}
