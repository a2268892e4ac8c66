//! Looking for a text in bytes, also where it was encoded on the way.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Most bytes that one compressed stream is unpacked to.
const UNPACKED: u64 = 64 * 1024 * 1024;

/// What a text can look like in a file.
pub struct Needles(Vec<Vec<u8>>);

impl Needles {
    /// Of texts of letters and digits: raw, hex in both cases, base64 in both alphabets at any offset.
    pub fn of(texts: &[String]) -> Self {
        let mut needles = Vec::new();
        for text in texts {
            needles.push(text.clone().into_bytes());
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            needles.push(hex.to_uppercase().into_bytes());
            needles.push(hex.into_bytes());
            for skipped in 0..3 {
                // What the first and last characters look like depends on their neighbours.
                let inner = &text.as_bytes()[skipped..];
                let inner = &inner[..inner.len() / 3 * 3];
                needles.push(STANDARD_NO_PAD.encode(inner).into_bytes());
                needles.push(URL_SAFE_NO_PAD.encode(inner).into_bytes());
            }
        }
        needles.sort();
        needles.dedup();
        Self(needles)
    }

    /// Whether one of them is in `bytes`, or in a gzip stream within it.
    pub fn are_in(&self, bytes: &[u8]) -> bool {
        if self.0.iter().any(|needle| contains(bytes, needle)) {
            return true;
        }
        let starts = bytes
            .windows(3)
            .enumerate()
            .filter(|(_, at)| *at == [0x1f, 0x8b, 8]);
        starts.into_iter().any(|(at, _)| {
            let mut unpacked = Vec::new();
            let stream = flate2::read::GzDecoder::new(&bytes[at..]);
            // Whatever could be unpacked before it turned out to be none is looked at.
            let _cut = stream.take(UNPACKED).read_to_end(&mut unpacked);
            self.0.iter().any(|needle| contains(&unpacked, needle))
        })
    }
}

/// Whether `needle` is in `bytes`: the first byte is looked for first, since most files hold none of it.
fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let (first, mut from) = (needle[0], 0);
    while let Some(found) = bytes[from..].iter().position(|byte| *byte == first) {
        let at = from + found;
        if bytes[at..].starts_with(needle) {
            return true;
        }
        from = at + 1;
    }
    false
}

/// Every file below `dir`, sockets left out.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found
}

/// The files below `dir` that hold one of the needles.
pub fn holders(dir: &Path, needles: &Needles) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| needles.are_in(&std::fs::read(path).unwrap());
    files(dir).into_iter().filter(holds).collect()
}
