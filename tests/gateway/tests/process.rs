//! The program itself: what it prints, when it is ready, how it ends.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_reference-gateway");

/// Ends the program when a test fails half-way.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn ask(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer token-e1\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_says_where_it_listens_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let child = Command::new(PROGRAM)
        .args(["--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"])
        .args(["--data", "plan", "--over-share", "limit,hang"])
        .arg("--db")
        .arg(dir.path().join("gateway.db"))
        .arg("--ready-file")
        .arg(&ready)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Ended(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let control = lines.next().unwrap().unwrap();
    let listening = lines.next().unwrap().unwrap();
    assert_eq!(
        std::fs::read_to_string(&ready).unwrap(),
        format!("{control}\n{listening}\n")
    );
    let address = listening.strip_prefix("listening on http://").unwrap();
    let control = control.strip_prefix("control on http://").unwrap();
    assert!(ask(address, "/internal/v1/health").starts_with("HTTP/1.1 200"));
    assert!(ask(control, "/_control").contains(r#"["limit","hang"]"#));
    // One request hangs while the program is told to end.
    let mut hanging = TcpStream::connect(address).unwrap();
    hanging
        .write_all(b"GET /api/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token-e1\r\n\r\n")
        .unwrap();
    let pid = child.0.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(sent.success());
    assert!(child.0.wait().unwrap().success());
    assert!(lines.next().is_none());
}

#[test]
fn tokens_are_printed() {
    let output = Command::new(PROGRAM).arg("tokens").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[1], ["e2", "e2", "token-e2", ""]);
    assert_eq!(rows[3], ["e4", "e4", "token-e4", "banned"]);
    let output = Command::new(PROGRAM)
        .args(["tokens", "--data", "generated", "--users", "7"])
        .output()
        .unwrap();
    assert_eq!(output.stdout.split(|byte| *byte == b'\n').count(), 8);
}

#[test]
fn a_file_with_other_data_and_unknown_words_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("gateway.db");
    let fails = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        let output = command.args(arguments).arg("--db").arg(&db).output();
        let output = output.unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(fails(&["--over-share", "everything"]).contains("everything"));
    assert!(fails(&["--data", "other"]).contains("other"));
    assert!(fails(&["--service-token", "t"]).contains("--jwks"));
    assert!(fails(&["--audience", "a"]).contains("--service-token"));
    let child = Command::new(PROGRAM)
        .args(["--data", "home"])
        .arg("--db")
        .arg(&db)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Ended(child);
    let stdout = child.0.stdout.take().unwrap();
    assert!(BufReader::new(stdout).lines().next().is_some());
    drop(child);
    assert!(fails(&["--data", "plan"]).contains("already holds data set `home`"));
}
