//! Strict JSON, one value at a time, resumable at any byte.
//!
//! Invariant: accepts exactly RFC 8259 in UTF-8, without lone surrogates and nested at most [`MAX_DEPTH`] deep, and
//! its answer does not depend on how the input is cut. It keeps no bytes, so it can pass over values of any size.
//! Elsewhere on purpose: what is in the value. The fast scanner (`scan.rs`) reads rows that lie whole in memory; this
//! one finds the ends of all other values and has the last word about what is wrong.

use super::{lanes, text::hex_digit};

/// Deepest nesting of arrays and objects in a body, the outermost included.
pub(super) const MAX_DEPTH: u8 = 64;

/// How far a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// The value is not complete; all input was used.
    More,
    /// The value ended; this many bytes of the input belong to it or to the space before it.
    Done(usize),
}

/// What is wrong, and at which byte of the input given to [`Walker::walk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Syntax(usize),
    Utf8(usize),
    Depth(usize),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Value,
    FirstItem,
    FirstName,
    Name,
    Colon,
    After,
    Text,
    Escape,
    Unit { digits: u8, unit: u16, low: bool },
    LowBackslash,
    LowU,
    Utf8 { left: u8, from: u8, to: u8 },
    Number(Number),
    Literal(&'static [u8]),
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// Passes over one value.
#[derive(Debug)]
pub(super) struct Walker {
    state: State,
    is_name: bool,
    open: u8,
    // One bit per open container, the innermost lowest; set for objects.
    objects: u64,
    room: u8,
}

impl Walker {
    /// A walker for a value inside `depth` containers.
    pub(super) const fn new(depth: u8) -> Self {
        Self {
            state: State::Value,
            is_name: false,
            open: 0,
            objects: 0,
            room: MAX_DEPTH.saturating_sub(depth),
        }
    }

    /// Goes on with the next piece of the value. Not to be called again after it is done or faulty.
    pub(super) fn walk(&mut self, input: &[u8]) -> Result<Walk, Fault> {
        let mut at = 0;
        loop {
            if matches!(self.state, State::Text) {
                at = lanes::plain_ascii(input, at);
            }
            let Some(&byte) = input.get(at) else {
                return Ok(Walk::More);
            };
            if let State::Number(number) = self.state
                && let Some(ended) = self.number(number, byte).ok_or(Fault::Syntax(at))?
            {
                if ended {
                    return Ok(Walk::Done(at));
                }
                // The byte after a number is not part of it: look at it again.
                continue;
            }
            if self.byte(byte, at)? {
                return Ok(Walk::Done(at + 1));
            }
            at += 1;
        }
    }

    /// Takes one byte; true when it ends the value.
    fn byte(&mut self, byte: u8, at: usize) -> Result<bool, Fault> {
        let syntax = Fault::Syntax(at);
        match self.state {
            State::Value | State::FirstItem => return self.value(byte, at),
            State::FirstName | State::Name | State::Colon | State::After => {
                return self.between(byte).ok_or(syntax);
            }
            State::Text => match byte {
                b'"' => return Ok(self.text_ended()),
                b'\\' => self.state = State::Escape,
                0x80.. => self.state = lead(byte).ok_or(Fault::Utf8(at))?,
                _ => return Err(syntax),
            },
            State::Utf8 { left, from, to } => {
                if !(from..=to).contains(&byte) {
                    return Err(Fault::Utf8(at));
                }
                self.state = match left {
                    1 => State::Text,
                    _ => State::Utf8 {
                        left: left - 1,
                        from: 0x80,
                        to: 0xbf,
                    },
                };
            }
            State::Escape | State::Unit { .. } | State::LowBackslash | State::LowU => {
                self.state = self.escape(byte).ok_or(syntax)?;
            }
            State::Literal(rest) => match rest.split_first() {
                Some((expected, rest)) if *expected == byte => {
                    self.state = State::Literal(rest);
                    return Ok(rest.is_empty() && self.value_ended());
                }
                _ => return Err(syntax),
            },
            // Settled before.
            State::Number(_) => {}
        }
        Ok(false)
    }

    /// Where a value may begin.
    fn value(&mut self, byte: u8, at: usize) -> Result<bool, Fault> {
        let first = matches!(self.state, State::FirstItem);
        self.state = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => return Ok(false),
            b']' if first => return Ok(self.close()),
            b'"' => {
                self.is_name = false;
                State::Text
            }
            b'{' | b'[' => {
                if self.open >= self.room {
                    return Err(Fault::Depth(at));
                }
                self.open += 1;
                self.objects = self.objects << 1 | u64::from(byte == b'{');
                if byte == b'{' {
                    State::FirstName
                } else {
                    State::FirstItem
                }
            }
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Whole),
            _ => return Err(Fault::Syntax(at)),
        };
        Ok(false)
    }

    /// Inside a container, around its values; `None` when the byte has no place here.
    fn between(&mut self, byte: u8) -> Option<bool> {
        let in_object = self.objects & 1 == 1;
        self.state = match (self.state, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => return Some(false),
            (State::FirstName, b'}') => return Some(self.close()),
            (State::FirstName | State::Name, b'"') => {
                self.is_name = true;
                State::Text
            }
            (State::Colon, b':') => State::Value,
            (State::After, b',') if in_object => State::Name,
            (State::After, b',') => State::Value,
            (State::After, b'}') if in_object => return Some(self.close()),
            (State::After, b']') if !in_object => return Some(self.close()),
            _ => return None,
        };
        Some(false)
    }

    /// The state after one byte of an escape sequence.
    fn escape(&self, byte: u8) -> Option<State> {
        let start = |low| State::Unit {
            digits: 0,
            unit: 0,
            low,
        };
        Some(match (self.state, byte) {
            (State::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => State::Text,
            (State::Escape, b'u') => start(false),
            (State::LowBackslash, b'\\') => State::LowU,
            (State::LowU, b'u') => start(true),
            (State::Unit { digits, unit, low }, _) => {
                let unit = unit << 4 | hex_digit(byte)?;
                match (digits, unit, low) {
                    (0..3, ..) => State::Unit {
                        digits: digits + 1,
                        unit,
                        low,
                    },
                    (_, 0xd800..=0xdbff, false) => State::LowBackslash,
                    (_, 0xdc00..=0xdfff, false) => return None,
                    (_, 0xdc00..=0xdfff, true) | (_, _, false) => State::Text,
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    /// One byte of a number: `Some(None)` when it belongs to it, `Some(Some(done))` when it follows it.
    fn number(&mut self, number: Number, byte: u8) -> Option<Option<bool>> {
        let next = match (number, byte) {
            (Number::Minus, b'0') => Number::Zero,
            (Number::Minus, b'1'..=b'9') | (Number::Whole, b'0'..=b'9') => Number::Whole,
            (Number::Zero | Number::Whole, b'.') => Number::Point,
            (Number::Point | Number::Fraction, b'0'..=b'9') => Number::Fraction,
            (Number::Zero | Number::Whole | Number::Fraction, b'e' | b'E') => Number::Exponent,
            (Number::Exponent, b'+' | b'-') => Number::Sign,
            (Number::Exponent | Number::Sign | Number::Power, b'0'..=b'9') => Number::Power,
            (Number::Zero | Number::Whole | Number::Fraction | Number::Power, _) => {
                return Some(Some(self.value_ended()));
            }
            _ => return None,
        };
        self.state = State::Number(next);
        Some(None)
    }

    const fn text_ended(&mut self) -> bool {
        if self.is_name {
            self.state = State::Colon;
            return false;
        }
        self.value_ended()
    }

    const fn close(&mut self) -> bool {
        self.open -= 1;
        self.objects >>= 1;
        self.value_ended()
    }

    const fn value_ended(&mut self) -> bool {
        self.state = State::After;
        self.open == 0
    }
}

/// The first byte of a character outside ASCII (RFC 3629, section 4).
const fn lead(byte: u8) -> Option<State> {
    let (left, from, to) = match byte {
        0xc2..=0xdf => (1, 0x80, 0xbf),
        0xe0 => (2, 0xa0, 0xbf),
        0xed => (2, 0x80, 0x9f),
        0xe1..=0xef => (2, 0x80, 0xbf),
        0xf0 => (3, 0x90, 0xbf),
        0xf1..=0xf3 => (3, 0x80, 0xbf),
        0xf4 => (3, 0x80, 0x8f),
        _ => return None,
    };
    Some(State::Utf8 { left, from, to })
}
