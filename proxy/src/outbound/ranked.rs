//! The hits of several sources, put into one list.
//!
//! Invariant: each source's hits keep their order, and the best of each source come before the second best of any.
//! Scores of different sources are never compared: each is relative to the rows of its own source.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::AnswerFault;

/// The hits of one source, best first.
#[derive(Debug, Default)]
pub(super) struct Hits {
    texts: VecDeque<Vec<u8>>,
    pub(super) partial: bool,
    pub(super) truncated: bool,
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    #[serde(rename = "_partial", default)]
    partial: bool,
    #[serde(rename = "_truncated", default)]
    truncated: bool,
}

impl Hits {
    /// Reads the answer to a search.
    ///
    /// # Errors
    /// [`AnswerFault::Malformed`].
    pub(super) fn parse(body: &[u8]) -> Result<Self, AnswerFault> {
        let written: Written<'_> =
            serde_json::from_slice(body).map_err(|_| AnswerFault::Malformed)?;
        let texts = written.items.iter();
        Ok(Self {
            texts: texts.map(|hit| hit.get().as_bytes().to_vec()).collect(),
            partial: written.partial,
            truncated: written.truncated,
        })
    }
}

/// At most `limit` hits, with commas between them, and whether some were left out.
pub(super) fn interleave(mut sources: Vec<Hits>, limit: u64) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let mut count = 0_u64;
    loop {
        let mut any = false;
        for source in &mut sources {
            let Some(text) = source.texts.pop_front() else {
                continue;
            };
            if count == limit {
                return (out, true);
            }
            if count > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&text);
            count = count.saturating_add(1);
            any = true;
        }
        if !any {
            return (out, false);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hits(texts: &[&str]) -> Hits {
        let body = format!("{{\"items\":[{}],\"_truncated\":true}}", texts.join(","));
        Hits::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn the_best_of_each_come_first() {
        let sources = || vec![hits(&["1", "2", "3"]), hits(&[]), hits(&["10", "20"])];
        assert_eq!(interleave(sources(), 9), (b"1,10,2,20,3".to_vec(), false));
        assert_eq!(interleave(sources(), 3), (b"1,10,2".to_vec(), true));
        assert_eq!(interleave(sources(), 5), (b"1,10,2,20,3".to_vec(), false));
        assert!(hits(&[]).truncated);
        assert!(Hits::parse(b"{}").is_err());
    }
}
