//! Copies of what a sidecar has left behind, for trials on them: its directory, and the schema that goes with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::database;

/// Why no copies can be made here; `None` when they can, as they always can of files.
pub fn missing() -> Option<String> {
    if !database::is_postgres() || programs().is_some() {
        return None;
    }
    Some("MOSAIC_TEST_POSTGRES_BIN names no directory with pg_dump".to_owned())
}

/// Where the programs of the server are.
fn programs() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("MOSAIC_TEST_POSTGRES_BIN")?);
    dir.join("pg_dump").exists().then_some(dir)
}

/// Copies the directory of a sidecar, and its database. The copy's settings name the copy.
pub fn copy(from: &Path, to: &Path) {
    copy_files(from, to);
    if !database::is_postgres() {
        return;
    }
    let (programs, server) = (programs().unwrap(), std::env::var("MOSAIC_TEST_POSTGRES"));
    let (server, old, new) = (
        server.unwrap(),
        database::schema(from),
        database::schema(to),
    );
    let dumped = Command::new(programs.join("pg_dump"))
        .args(["--schema", &old, "--dbname", &server])
        .output()
        .unwrap();
    assert!(dumped.status.success(), "{dumped:?}");
    let text = String::from_utf8(dumped.stdout).unwrap();
    let mut restore = Command::new(programs.join("psql"))
        .args(["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1"])
        .args(["--dbname", &server])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = restore.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, text.replace(&old, &new).as_bytes()).unwrap();
    drop(input);
    assert!(restore.wait().unwrap().success());
    let file = to.join("federation.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, settings.replace(&old, &new)).unwrap();
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
