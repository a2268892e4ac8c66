//! A page for each refusal, below `docs/reasons/`: the top of it written from the code, three sections by hand.
//!
//! Invariant: there is a page for each code and none besides; what the code says about itself is not written twice.
//! `UPDATE_DOCS=1` makes the test write the tops, the index and the table of protocol.md, and for a new code a page
//! whose sections are still to be written.

use std::collections::BTreeSet;

use policy::deny::DenyCode;
use proxy::message::failure::Failure;
use proxy::message::status::status_of;

use super::{between, files, read, root};

const DIRECTORY: &str = "docs/reasons";
const INDEX: &str = "docs/reasons/README.md";
/// Ends what is written from the code.
const MARK: &str = "<!-- reason: end -->";
/// Stands where somebody has to write.
const TO_WRITE: &str = "(to be written)";
const SECTIONS: [&str; 3] = [
    "When it happens",
    "On the asking side",
    "On the serving side",
];
const HOW: &str = "run `UPDATE_DOCS=1 cargo test -p tests --test docs reasons`, write what it leaves open, commit the pages";

fn page_of(code: DenyCode) -> String {
    format!("{DIRECTORY}/{code}.md")
}

/// Whether the peer is told the code, and the envelope it gets.
fn told(code: DenyCode) -> (bool, String) {
    let envelope = Failure::from(code).envelope("0190d1c2-7d5e-7f3a-8a55-1f0c3a9b2d10");
    let text = String::from_utf8_lossy(&envelope).into_owned();
    (text.contains("details"), text)
}

/// The top of a page.
fn top(code: DenyCode) -> String {
    let (status, wire) = status_of(code);
    let (reason_told, envelope) = told(code);
    let connection = if Failure::from(code).close {
        "this answer is the last on it"
    } else {
        "stays open"
    };
    let audience = if reason_told {
        "told, as `details.reason`"
    } else {
        "not told: the text is the same for everything a stranger could probe with"
    };
    format!(
        "<!-- Written from the code down to the mark: {HOW}. -->\n\
         # `{code}`\n\n{}\n\n\
         | | |\n|---|---|\n\
         | decided by | {} (stage `{}`) |\n\
         | answer | HTTP {}, `{}` |\n\
         | reason | {audience} |\n\
         | HTTP/1.1 connection | {connection} |\n\
         | in short | {} |\n\n\
         What the peer sees:\n\n\
         <!-- example: json -->\n```json\n{envelope}\n```\n{MARK}\n",
        code.meaning(),
        code.stage().decides(),
        code.stage(),
        status.as_u16(),
        wire.as_str(),
        code.remedy(),
    )
}

fn skeleton() -> String {
    let section = |name: &&str| format!("\n## {name}\n\n{TO_WRITE}\n");
    SECTIONS.iter().map(section).collect()
}

/// The index: every code with its page, by stage.
fn index() -> String {
    let mut page = format!(
        "<!-- Written from the code: {HOW}. -->\n\
         # Why a request was refused\n\n\
         Every refusal has one of these codes: in `details.reason` of the answer where the peer is told, always in `deny_code` of\n\
         the audit row, and in the label `code` of `mosaic_federation_denials_total`. `mosaic-federation audit explain ID` tells how\n\
         one request came to its answer.\n\n\
         | code | stage | status | meaning |\n|---|---|---|---|\n"
    );
    for code in DenyCode::ALL {
        let status = status_of(*code).0.as_u16();
        let (stage, meaning) = (code.stage(), code.meaning());
        page.push_str(&format!(
            "| [{code}]({code}.md) | {stage} | {status} | {meaning} |\n"
        ));
    }
    page
}

/// The rows of the table in protocol.md.
pub(crate) fn table() -> String {
    let row = |code: &DenyCode| {
        let (status, wire) = status_of(*code);
        let failure = Failure::from(*code);
        format!(
            "| `{code}` | {} | {} | `{}` | {} | {} | {} |\n",
            code.stage(),
            status.as_u16(),
            wire.as_str(),
            if told(*code).0 { "yes" } else { "no" },
            if failure.close { "closed" } else { "kept" },
            code.meaning(),
        )
    };
    DenyCode::ALL.iter().map(row).collect()
}

fn write(path: &str, text: &str) {
    std::fs::write(root().join(path), text).unwrap();
}

/// Puts the text of the code into the pages.
fn update() {
    for code in DenyCode::ALL {
        let path = page_of(*code);
        let known = std::fs::read_to_string(root().join(&path)).ok();
        let rest = known.and_then(|text| Some(text.split_once(MARK)?.1.trim_start().to_owned()));
        let rest = rest.map_or_else(skeleton, |rest| format!("\n{rest}"));
        write(&path, &format!("{}{rest}", top(*code)));
    }
    write(INDEX, &index());
    let (begin, end) = ("<!-- deny-codes: begin -->", "<!-- deny-codes: end -->");
    let page = read("docs/protocol.md");
    let old = between(&page, begin, end);
    let head: String = old
        .lines()
        .filter(|line| !line.starts_with("| `"))
        .map(|line| format!("{line}\n"))
        .collect();
    let new = format!("{begin}{head}{}{end}", table());
    write(
        "docs/protocol.md",
        &page.replace(&format!("{begin}{old}{end}"), &new),
    );
}

/// What is wrong with the page of a code.
fn faults(code: DenyCode, text: &str) -> Option<String> {
    let path = page_of(code);
    let Some(rest) = text.strip_prefix(&top(code)) else {
        return Some(format!("{path} is not as the code says: {HOW}"));
    };
    let mut sections = rest.split("\n## ").skip(1);
    for name in SECTIONS {
        let body = sections
            .next()
            .and_then(|section| section.strip_prefix(name));
        match body.map(str::trim) {
            None => return Some(format!("{path} has no section `## {name}` in its place")),
            Some("" | TO_WRITE) => {
                return Some(format!(
                    "{path}: write the section `## {name}` in a sentence or two"
                ));
            }
            Some(_) => {}
        }
    }
    None
}

#[test]
fn every_refusal_has_a_page_of_its_own() {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        update();
    }
    let mut wrong = Vec::new();
    let mut expected = BTreeSet::from([INDEX.to_owned()]);
    for code in DenyCode::ALL {
        let path = page_of(*code);
        match std::fs::read_to_string(root().join(&path)) {
            Ok(text) => wrong.extend(faults(*code, &text)),
            Err(_) => wrong.push(format!("{path} is missing: {HOW}")),
        }
        expected.insert(path);
    }
    let found: BTreeSet<String> = files(DIRECTORY, &[".md"]).into_iter().collect();
    for stray in found.difference(&expected) {
        wrong.push(format!("{stray} is the page of no code: remove it"));
    }
    if std::fs::read_to_string(root().join(INDEX)).ok() != Some(index()) {
        wrong.push(format!("{INDEX} is not as the codes are: {HOW}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
