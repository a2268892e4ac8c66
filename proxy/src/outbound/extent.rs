//! Where a JSON value ends, found while it arrives.
//!
//! Invariant: no byte is looked at twice, however the input is cut, and nesting beyond the bound is refused before
//! the value has arrived whole. Whether the value is valid JSON is checked once it is whole, by its reader.

/// The value is nested deeper than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooDeep;

/// The search for the end of one value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    scanned: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Extent {
    /// Whether part of the value has been seen.
    #[must_use]
    pub const fn is_begun(&self) -> bool {
        self.scanned > 0
    }

    /// Looks at `bytes`, which begin with the value and hold all that was seen before: its length once its end
    /// is certain. A number or literal ends only at the byte after it.
    ///
    /// # Errors
    /// [`TooDeep`] for more than `max_depth` open objects and arrays.
    pub fn advance(&mut self, bytes: &[u8], max_depth: usize) -> Result<Option<usize>, TooDeep> {
        let is_scalar = !matches!(bytes.first(), Some(b'{' | b'[' | b'"'));
        for (at, byte) in bytes.iter().enumerate().skip(self.scanned) {
            self.scanned = at.saturating_add(1);
            let ended = if is_scalar {
                if b",]} \t\r\n".contains(byte) {
                    return Ok(Some(at));
                }
                false
            } else if self.in_text {
                self.text(*byte)
            } else {
                self.structure(*byte, max_depth)?
            };
            if ended {
                return Ok(Some(self.scanned));
            }
        }
        Ok(None)
    }

    /// One byte within a string; true when the value ends with it.
    fn text(&mut self, byte: u8) -> bool {
        match (self.escaped, byte) {
            (true, _) => self.escaped = false,
            (false, b'\\') => self.escaped = true,
            (false, b'"') => {
                self.in_text = false;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    fn structure(&mut self, byte: u8, max_depth: usize) -> Result<bool, TooDeep> {
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                if self.depth > max_depth {
                    return Err(TooDeep);
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return Ok(self.depth == 0);
            }
            _ => {}
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_end_is_found_wherever_the_input_is_cut() {
        for (text, len) in [
            (r#"{"a":[1,"}]\"",{}]},"#, 19),
            (r#""a\\\"b",1"#, 8),
            ("[[],[]]]", 7),
            ("true,", 4),
            ("-1.5e3}", 6),
            ("null ", 4),
        ] {
            for cut in 0..text.len() {
                let mut extent = Extent::default();
                let found = match text.get(..cut).filter(|part| !part.is_empty()) {
                    Some(part) => extent.advance(part.as_bytes(), 8).unwrap(),
                    None => None,
                };
                let found = found.or_else(|| extent.advance(text.as_bytes(), 8).unwrap());
                assert_eq!(found, Some(len), "{text} cut at {cut}");
            }
        }
    }

    #[test]
    fn depth_is_bounded_before_the_end() {
        let deep = "[".repeat(9);
        assert_eq!(Extent::default().advance(deep.as_bytes(), 8), Err(TooDeep));
        assert_eq!(
            Extent::default().advance("[\"[[[[[[[[[".as_bytes(), 1),
            Ok(None)
        );
    }
}
