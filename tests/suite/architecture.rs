//! Rules of the layout that reading the sources can decide.
//!
//! Invariant: a rule is checked on every file of its crate, so a new file cannot escape it. Comments
//! and texts do not count; code under `#[cfg(test)]` does not either, nor do files of tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A source file of the product.
struct Source {
    /// Relative to the repository.
    path: String,
    /// As it is.
    text: String,
    /// Without comments, string contents and test modules.
    code: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Every Rust file below these directories.
fn sources(dirs: &[&str]) -> Vec<Source> {
    let root = repository();
    let mut found = Vec::new();
    for dir in dirs {
        files(&root.join(dir), &mut found);
    }
    assert!(!found.is_empty());
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            Source {
                path: path.strip_prefix(&root).unwrap().display().to_string(),
                code: without_tests(&without_comments(&text)),
                text,
            }
        })
        .collect()
}

const PRODUCT: &[&str] = &["policy/src", "certs/src", "proxy/src"];

/// Blanks comments and the contents of string and character literals.
fn without_comments(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let next = |at: usize| bytes.get(at + 1).copied();
    while at < bytes.len() {
        let c = bytes[at];
        let raw = c == 'r' && matches!(next(at), Some('"' | '#'));
        let in_word = at > 0 && (bytes[at - 1].is_alphanumeric() || bytes[at - 1] == '_');
        if c == '/' && next(at) == Some('/') {
            while at < bytes.len() && bytes[at] != '\n' {
                at += 1;
            }
        } else if c == '/' && next(at) == Some('*') {
            let mut depth = 0;
            loop {
                match (bytes.get(at), bytes.get(at + 1)) {
                    (Some('/'), Some('*')) => (depth, at) = (depth + 1, at + 2),
                    (Some('*'), Some('/')) => (depth, at) = (depth - 1, at + 2),
                    (Some(_), _) => at += 1,
                    (None, _) => break,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if raw && (!in_word || bytes[at - 1] == 'b') {
            let hashes = bytes[at + 1..].iter().take_while(|c| **c == '#').count();
            if bytes.get(at + 1 + hashes) != Some(&'"') {
                out.push(c);
                at += 1;
                continue;
            }
            let end: Vec<char> = std::iter::once('"')
                .chain(std::iter::repeat_n('#', hashes))
                .collect();
            at += 2 + hashes;
            while at < bytes.len() && !bytes[at..].starts_with(&end) {
                at += 1;
            }
            at += end.len();
            out.push_str("\"\"");
        } else if c == '"' {
            at += 1;
            while at < bytes.len() && bytes[at] != '"' {
                at += if bytes[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            out.push_str("\"\"");
        } else if c == '\'' && (next(at) == Some('\\') || bytes.get(at + 2) == Some(&'\'')) {
            at += if next(at) == Some('\\') { 3 } else { 2 };
            while at < bytes.len() && bytes[at] != '\'' {
                at += 1;
            }
            at += 1;
            out.push_str("''");
        } else {
            out.push(c);
            at += 1;
        }
    }
    out
}

/// Removes every item marked `#[cfg(test)]`, or with a feature that only tests switch on.
fn without_tests(code: &str) -> String {
    let marks = ["#[cfg(test)]", "#[cfg(any(test, feature = \"\"))]"];
    let mut rest = code;
    let mut out = String::with_capacity(code.len());
    loop {
        let found = marks
            .iter()
            .filter_map(|mark| rest.find(mark).map(|at| (at, mark.len())))
            .min();
        let Some((at, length)) = found else {
            out.push_str(rest);
            return out;
        };
        out.push_str(&rest[..at]);
        rest = &rest[at + length..];
        let semicolon = rest.find(';').unwrap_or(rest.len());
        let brace = rest.find('{').unwrap_or(rest.len());
        let end = if semicolon < brace {
            semicolon + 1
        } else {
            let mut depth = 0;
            let close = rest[brace..].char_indices().find(|(_, c)| {
                depth += match c {
                    '{' => 1,
                    '}' => -1,
                    _ => 0,
                };
                depth == 0
            });
            close.map_or(rest.len(), |(at, _)| brace + at + 1)
        };
        rest = &rest[end..];
    }
}

/// Whether a file holds tests or what only tests use.
fn is_of_tests(path: &str) -> bool {
    path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || path.contains("/testing")
        || path.contains("/conformance")
        || path.ends_with("/fixture.rs")
        || path.ends_with("/evaluate/world.rs")
}

fn product() -> Vec<Source> {
    let mut all = sources(PRODUCT);
    all.retain(|source| !is_of_tests(&source.path));
    all
}

/// Fails with every file outside `allowed` (prefixes) whose code has one of `words`.
fn only_in(words: &[&str], allowed: &[&str], why: &str) {
    let mut offenders = Vec::new();
    for source in product() {
        if allowed.iter().any(|prefix| source.path.starts_with(prefix)) {
            continue;
        }
        for word in words {
            if source.code.contains(word) {
                offenders.push(format!("{}: {word}", source.path));
            }
        }
    }
    assert!(offenders.is_empty(), "{why}\n{}", offenders.join("\n"));
    // The rule would be empty if nothing used the words at all.
    let used = product()
        .iter()
        .any(|source| words.iter().any(|word| source.code.contains(word)));
    assert!(used || allowed.is_empty(), "nothing has {words:?} any more");
}

#[test]
fn the_reader_of_sources_sees_code_only() {
    let text = "// Instant::now\nlet a = \"Instant::now\"; /* x /* y */ z */ let c = '\"'; b\n\
        let r = r#\"Instant::now\"#; let life: &'static str = x;\n\
        #[cfg(test)]\nmod tests { fn x() { Instant::now() } }\nlet end = 1;";
    let code = without_tests(&without_comments(text));
    assert!(!code.contains("Instant::now"), "{code}");
    for kept in ["let a", "let c", "&'static str", "let end = 1"] {
        assert!(code.contains(kept), "{kept}: {code}");
    }
}

/// The `[dependencies]` of a package.
fn dependencies(package: &str) -> BTreeSet<String> {
    let path = repository().join(package).join("Cargo.toml");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn policy_depends_on_small_pure_crates_only() {
    let pure = [
        "aws-lc-rs",
        "base64",
        "hex",
        "memchr",
        "schemars",
        "serde",
        "serde_json",
        "simdutf8",
        "thiserror",
        "toml",
        "unicode-normalization",
        "uuid",
    ];
    for name in dependencies("policy") {
        assert!(pure.contains(&name.as_str()), "policy depends on {name}");
    }
}

#[test]
fn policy_does_no_input_or_output_and_reads_no_clock() {
    let words = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "std::io",
        "tokio",
        "async fn",
        "tracing",
        "println!",
        "eprintln!",
        "SystemTime",
        "Instant::",
    ];
    for source in product() {
        if source.path.starts_with("policy/") {
            for word in words {
                assert!(!source.code.contains(word), "{}: {word}", source.path);
            }
        }
    }
}

#[test]
fn certs_does_not_know_policy() {
    let names = dependencies("certs");
    assert!(
        !names.contains("policy") && !names.contains("proxy"),
        "{names:?}"
    );
    let names = dependencies("policy");
    assert!(
        !names.contains("certs") && !names.contains("proxy"),
        "{names:?}"
    );
}

#[test]
fn pingora_is_named_only_at_the_edge() {
    only_in(
        &["pingora"],
        &[
            "proxy/src/transport/",
            "proxy/src/inbound/service.rs",
            "proxy/src/inbound/answer.rs",
            "proxy/src/inbound/respond.rs",
            // They connect, and hold the stream that came of it.
            "proxy/src/gateway/client.rs",
            "proxy/src/gateway/wire.rs",
            "proxy/src/gateway/error.rs",
        ],
        "Pingora's types belong to the transport, the service and the gateway's client",
    );
}

#[test]
fn a_peer_to_connect_to_is_built_in_one_place() {
    let client = "proxy/src/gateway/client.rs";
    only_in(&["HttpPeer::"], &[client], "build HttpPeer there only");
    let client = product()
        .into_iter()
        .find(|source| source.path == client)
        .unwrap();
    // Its constructor resolves names blocking and panics when it cannot: names are resolved first,
    // under the permit or authority that the question is asked with.
    assert!(client.code.contains("lookup_host"));
    assert!(
        client
            .code
            .contains("_authority: &Authority<'_>) -> Result<HttpPeer")
    );
}

#[test]
fn the_gateway_is_asked_with_get_only() {
    let grammar = "proxy/src/gateway/http1.rs";
    let gets = |source: &Source| source.path == grammar && source.code.contains("Method::GET");
    assert!(product().iter().any(gets));
    let gateway = |source: &Source| source.path.starts_with("proxy/src/gateway");
    for source in product().into_iter().filter(gateway) {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"] {
            assert!(
                !source.code.contains(&format!("Method::{method}")),
                "{}: {method}",
                source.path
            );
        }
    }
    only_in(
        &["request_line("],
        &[grammar, "proxy/src/gateway/client.rs"],
        "a request to the gateway is built in its client only",
    );
}

#[test]
fn sql_is_in_the_store_only() {
    only_in(
        &["sqlx"],
        &["proxy/src/store/"],
        "statements belong below store/",
    );
    let mut offenders = Vec::new();
    for source in product() {
        let texts = source.text.replace('\n', " ");
        for word in ["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE FROM "] {
            if texts.contains(word) && !source.path.starts_with("proxy/src/store/") {
                offenders.push(format!("{}: {word}", source.path));
            }
        }
    }
    assert!(offenders.is_empty(), "{offenders:?}");
}

#[test]
fn the_clock_is_read_in_one_place() {
    let clock = ["certs/src/clock.rs"];
    only_in(&["clock_gettime"], &clock, "only clock.rs reads the clock");
    only_in(
        &[
            "SystemTime::now",
            "Instant::now",
            "UnixTime::now",
            "Timestamp::now",
            "OffsetDateTime::now",
            "Zoned::now",
        ],
        &[],
        "take a Clock as an argument",
    );
}

#[test]
fn statuses_of_reasons_are_in_one_place() {
    let status = product()
        .into_iter()
        .find(|source| source.path == "proxy/src/message/status.rs")
        .unwrap();
    assert!(
        !status.code.contains("_ =>"),
        "a new reason must not compile until it has a status"
    );
}

#[test]
fn nothing_is_unsafe() {
    for source in sources(&["policy", "certs", "proxy", "tests", "benches"]) {
        let mut words = source
            .code
            .split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(!words.any(|word| word == "unsafe"), "{}", source.path);
    }
}

#[test]
fn every_file_opens_with_what_it_is() {
    let missing: Vec<String> = sources(&["policy", "certs", "proxy", "tests", "benches"])
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn handwritten_settings_never_skip_verification() {
    // `dangerous()` is how rustls takes a verifier of one's own; certs has the only ones.
    only_in(
        &[".dangerous()"],
        &["certs/src/tls.rs"],
        "client configurations are made in certs",
    );
    only_in(
        &["ServerConfig::builder", "ClientConfig::builder"],
        &["certs/src/tls.rs"],
        "TLS configurations are made in certs",
    );
}

/// The module of a file below `src`: `proxy/src/store/sqlite.rs` is `store::sqlite`.
fn module_of(path: &str) -> Option<(String, String)> {
    let (package, rest) = path.split_once("/src/")?;
    let rest = rest.strip_suffix(".rs")?;
    let rest = rest.strip_suffix("/mod").unwrap_or(rest);
    Some((package.to_owned(), rest.replace('/', "::")))
}

/// The modules that a file's code names by `crate::` or `super::` paths, as far as files go.
fn imports(module: &str, code: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut resolve = |path: &str| {
        // The longest prefix that is a file.
        let parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
        let known = (1..=parts.len())
            .rev()
            .map(|length| parts[..length].join("::"))
            .find(|candidate| modules.contains(candidate));
        if let Some(known) = known.filter(|known| known != module) {
            found.insert(known);
        }
    };
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for (mark, base) in [("crate::", Some(String::new())), ("super::", None)] {
        let mut rest = code;
        while let Some(at) = rest.find(mark) {
            let before = rest[..at].chars().next_back();
            let tail = &rest[at + mark.len()..];
            rest = tail;
            if before.is_some_and(word) {
                continue;
            }
            let mut tail = tail;
            let mut prefix = match &base {
                Some(base) => base.clone(),
                None => {
                    let mut parent = parent_of(module);
                    while let Some(more) = tail.strip_prefix("super::") {
                        parent = parent_of(&parent);
                        tail = more;
                    }
                    parent
                }
            };
            let end = tail.find(|c| !word(c)).unwrap_or(tail.len());
            if !prefix.is_empty() {
                prefix.push_str("::");
            }
            prefix.push_str(&tail[..end]);
            match tail[end..].strip_prefix('{') {
                // `use crate::a::{b::C, d}`: one level of braces is enough for the layout used here.
                Some(list) => {
                    let list = &list[..list.find('}').unwrap_or(list.len())];
                    for item in list.split([',', '{']) {
                        resolve(&format!("{prefix}::{}", item.trim()));
                    }
                }
                None => resolve(&prefix),
            }
        }
    }
    found
}

fn parent_of(module: &str) -> String {
    module
        .rsplit_once("::")
        .map_or(String::new(), |(parent, _)| parent.to_owned())
}

/// Cycles that stand: files of one module, split for their size, that pass one value back and forth.
/// Each is to get smaller; the test fails for any other, and for one that is gone.
const KNOWN_CYCLES: [&[&str]; 2] = [
    // The service answers; an answer is made with the service's parts and halts with its error.
    &["inbound::answer", "inbound::service"],
    // The files of the store's tables change each other's rows within one transaction.
    &[
        "store::sql::change",
        "store::sql::grants",
        "store::sql::image",
        "store::sql::outbound",
        "store::sql::peers",
        "store::sql::policy_bundle",
        "store::sql::tokens",
    ],
];

/// Whether one module is below the other: a module and its own parts may know each other, the file
/// is only split for its size.
fn is_family(one: &str, other: &str) -> bool {
    let below = |inner: &str, outer: &str| inner.starts_with(&format!("{outer}::"));
    below(one, other) || below(other, one)
}

#[test]
fn no_import_cycle_between_files() {
    let mut crates: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for source in product() {
        if let Some((package, module)) = module_of(&source.path) {
            crates
                .entry(package)
                .or_default()
                .push((module, source.code));
        }
    }
    for (package, files) in crates {
        let modules: BTreeSet<String> = files.iter().map(|(module, _)| module.clone()).collect();
        let edges: BTreeMap<String, BTreeSet<String>> = files
            .iter()
            .map(|(module, code)| {
                let mut to = imports(module, code, &modules);
                to.retain(|other| !is_family(module, other));
                (module.clone(), to)
            })
            .collect();
        assert!(
            edges.values().any(|to| !to.is_empty()),
            "{package}: nothing was read"
        );
        let known = |one: &str, other: &str| {
            KNOWN_CYCLES
                .iter()
                .any(|group| group.contains(&one) && group.contains(&other))
        };
        for group in KNOWN_CYCLES {
            let within: BTreeMap<_, _> = edges
                .iter()
                .filter(|(module, _)| group.contains(&module.as_str()))
                .map(|(module, to)| (module.clone(), to.clone()))
                .collect();
            assert!(
                within.is_empty() || cycle(&within).is_some(),
                "{group:?} is gone"
            );
        }
        let others = edges
            .into_iter()
            .map(|(module, mut to)| {
                to.retain(|other| !known(&module, other));
                (module, to)
            })
            .collect();
        if let Some(cycle) = cycle(&others) {
            panic!("{package}: {}", cycle.join(" -> "));
        }
    }
}

/// A cycle, if there is one.
fn cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        edges: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|seen| seen == at) {
            let mut cycle = path[start..].to_vec();
            cycle.push(at.to_owned());
            return Some(cycle);
        }
        if done.contains(at) {
            return None;
        }
        path.push(at.to_owned());
        for next in edges.get(at).into_iter().flatten() {
            if let Some(cycle) = visit(next, edges, path, done) {
                return Some(cycle);
            }
        }
        path.pop();
        done.insert(at.to_owned());
        None
    }
    let mut done = BTreeSet::new();
    edges
        .keys()
        .find_map(|start| visit(start, edges, &mut Vec::new(), &mut done))
}

#[test]
fn a_cycle_is_found() {
    let edge = |from: &str, to: &[&str]| {
        (
            from.to_owned(),
            to.iter().map(|name| (*name).to_owned()).collect(),
        )
    };
    let straight = [edge("a", &["b", "c"]), edge("b", &["c"]), edge("c", &[])].into();
    assert_eq!(cycle(&straight), None);
    let round = [edge("a", &["b"]), edge("b", &["c"]), edge("c", &["a"])].into();
    assert!(cycle(&round).is_some());
    let modules = ["a::b", "c", "d"].map(str::to_owned).into();
    let code = "use crate::c::{X, Y}; use super::super::d::Z; use crate::{c, d::W};";
    let found = imports("a::b", code, &modules);
    assert_eq!(found, ["c", "d"].map(str::to_owned).into());
}
