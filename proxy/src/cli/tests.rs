//! Invocations as a shell makes them: arguments in; exit status, standard output and standard error out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod policy;

use std::cell::RefCell;

use serde_json::Value;

use super::*;

struct Outcome {
    exit: Exit,
    out: String,
    errors: String,
    served: Option<Config>,
}

fn invoke(arguments: &[&str]) -> Outcome {
    let served = RefCell::new(None);
    let points = EntryPoints {
        serve: &|config, _| {
            *served.borrow_mut() = Some(config);
            Ok(())
        },
        init_authority: &|_| {
            Ok(AuthorityRoot {
                pem: "PEM".to_owned(),
                sha256: "ab".repeat(32),
            })
        },
        demo: &|options, out| {
            let name = options.gateway_binary.file_name().unwrap();
            writeln!(out, "demo {} {}", name.display(), options.keep).map_err(|e| e.to_string())
        },
    };
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let arguments = arguments.iter().map(OsString::from).collect();
    let exit = run(arguments, Vec::new(), &points, &mut out, &mut errors);
    Outcome {
        exit,
        out: String::from_utf8(out).unwrap(),
        errors: String::from_utf8(errors).unwrap(),
        served: served.into_inner(),
    }
}

/// A settings file of its own, so that none of the machine's is read.
fn settings(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("federation.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

const ASKING: &str = "[roles]\nserve = false\n[ops]\nlisten = \"127.0.0.1:0\"\n";

#[test]
fn serving_gets_the_settings_with_flags_applied() {
    let (_dir, file) = settings(ASKING);
    let outcome = invoke(&[
        "mosaic-federation",
        "serve",
        "--config",
        &file,
        "--set",
        "log.level=debug",
        "--admin-socket",
        "/run/a.sock",
    ]);
    assert_eq!(outcome.exit, Exit::Done, "{}", outcome.errors);
    let config = outcome.served.unwrap();
    assert_eq!(config.log.level, config::LogLevel::Debug);
    assert_eq!(config.admin.socket, Path::new("/run/a.sock"));
}

#[test]
fn the_demo_takes_no_settings_that_would_have_no_effect() {
    for settings in [
        &["--json"][..],
        &["--config", "x.toml"],
        &["--set", "log.level=debug"],
        &["--admin-socket", "x"],
    ] {
        let outcome = invoke(&[&["mosaic-federation", "demo"], settings].concat());
        assert_eq!(outcome.exit, Exit::Usage, "{}", outcome.errors);
        assert_eq!(outcome.out, "");
    }
}

#[test]
fn the_demo_gets_the_gateway_it_is_given() {
    let program = std::env::current_exe().unwrap();
    let name = program.file_name().unwrap().to_str().unwrap().to_owned();
    let program = program.to_str().unwrap();
    let outcome = invoke(&[
        "mosaic-federation",
        "demo",
        "--gateway-binary",
        program,
        "--keep",
    ]);
    assert_eq!(outcome.out, format!("demo {name} true\n"));
    let outcome = invoke(&["mosaic-federation", "demo", "--gateway-binary", "/nowhere"]);
    assert_eq!(outcome.exit, Exit::Failed);
    assert!(outcome.errors.contains("/nowhere"), "{}", outcome.errors);
}

#[test]
fn wrong_settings_end_with_usage_and_every_problem() {
    let (_dir, file) = settings("[roles]\nserve = false\nasks = true\n[log]\nlevel = \"loud\"\n");
    let outcome = invoke(&["mosaic-federation", "--config", &file, "serve"]);
    assert_eq!(outcome.exit, Exit::Usage);
    assert!(outcome.served.is_none());
    assert!(outcome.out.is_empty());
    assert!(
        outcome
            .errors
            .starts_with("error: the settings cannot be used\n  why: 2 problem(s)\n"),
        "{}",
        outcome.errors
    );
    assert!(
        outcome
            .errors
            .contains(":3:1: roles.asks: unknown key; did you mean `ask`?"),
        "{}",
        outcome.errors
    );
    assert!(
        outcome.errors.contains("log.level: must be one of"),
        "{}",
        outcome.errors
    );
}

#[test]
fn mosaic_takes_federation_as_its_first_word() {
    let (_dir, file) = settings(ASKING);
    let outcome = invoke(&["/usr/bin/mosaic", "federation", "serve", "--config", &file]);
    assert_eq!(outcome.exit, Exit::Done, "{}", outcome.errors);
    assert_eq!(
        invoke(&["/usr/bin/mosaic", "serve", "--config", &file]).exit,
        Exit::Usage
    );
    assert_eq!(invoke(&["mosaic"]).exit, Exit::Usage);
    assert_eq!(
        invoke(&["mosaic-federation", "federation", "serve"]).exit,
        Exit::Usage
    );
}

#[test]
fn what_is_not_a_command_of_this_version_is_usage() {
    for wrong in [
        &["mosaic-federation"][..],
        &["mosaic-federation", "store", "migrate"],
        &["mosaic-federation", "query", "search", "x", "--peer", "p"],
        &["mosaic-federation", "grant", "edit", "x"],
        &[
            "mosaic-federation",
            "store",
            "migrate",
            "--from",
            "x.db",
            "--to",
            "postgres://me@localhost/x",
        ],
        &[
            "mosaic-federation",
            "store",
            "migrate",
            "--from",
            "sqlite:x.db",
            "--to",
            "postgres://me@db.example/x?sslmode=disable",
        ],
        &[
            "mosaic-federation",
            "store",
            "migrate",
            "--from",
            "sqlite:x.db",
            "--to",
            "postgres://me@localhost/x",
            "--schema",
            "Mine",
        ],
        &[
            "mosaic-federation",
            "store",
            "migrate",
            "--from",
            "sqlite:x.db",
            "--to",
            "postgres://me@localhost/x",
            "--root-file",
            "x",
        ],
        &["mosaic-federation", "status", "--every", "2s"],
        &["mosaic-federation", "grant", "token", "x", "--ttl", "901"],
        &["mosaic-federation", "--set", "novalue", "status"],
    ] {
        let outcome = invoke(wrong);
        assert_eq!(outcome.exit, Exit::Usage, "{wrong:?}");
        assert!(
            outcome.out.is_empty() && !outcome.errors.is_empty(),
            "{wrong:?}"
        );
    }
    let outcome = invoke(&["mosaic-federation", "--json", "replicas"]);
    let envelope: Value = serde_json::from_str(&outcome.errors).unwrap();
    assert_eq!(envelope.pointer("/error/code").unwrap(), "usage");
}

#[test]
fn help_and_version_are_data() {
    let outcome = invoke(&["mosaic-federation", "--help"]);
    assert_eq!(outcome.exit, Exit::Done);
    assert!(outcome.out.contains("healthcheck") && outcome.errors.is_empty());
    assert!(
        invoke(&["mosaic-federation", "--version"])
            .out
            .contains(env!("CARGO_PKG_VERSION"))
    );
    assert!(
        invoke(&["mosaic-federation", "completions", "bash"])
            .out
            .contains("healthcheck")
    );
}

#[test]
fn without_a_process_a_command_is_unavailable_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let socket = socket.to_str().unwrap();
    let outcome = invoke(&[
        "mosaic-federation",
        "--admin-socket",
        socket,
        "grant",
        "list",
    ]);
    assert_eq!(outcome.exit, Exit::Unavailable);
    assert!(
        outcome.errors.contains("error: listing grants\n  why: ")
            && outcome.errors.contains("\n  do:  start")
    );
    let outcome = invoke(&[
        "mosaic-federation",
        "--admin-socket",
        socket,
        "status",
        "--json",
    ]);
    let envelope: Value = serde_json::from_str(&outcome.errors).unwrap();
    assert_eq!(envelope.pointer("/error/code").unwrap(), "unavailable");
    assert!(envelope.pointer("/error/hint").is_some() && outcome.out.is_empty());
}

#[test]
fn the_authority_is_made_without_a_process() {
    let (_dir, file) = settings(ASKING);
    let outcome = invoke(&["mosaic-federation", "--config", &file, "ca", "init"]);
    assert_eq!(
        (outcome.exit, outcome.out),
        (Exit::Done, format!("{}\n", "ab".repeat(32)))
    );
}

#[test]
fn the_shipped_policy_has_no_problem_and_a_wrong_one_has_its_place() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/policy.d");
    let outcome = invoke(&[
        "mosaic-federation",
        "policy",
        "check",
        shipped.to_str().unwrap(),
    ]);
    assert_eq!(outcome.exit, Exit::Done, "{}", outcome.errors);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("10.toml"), "schema = 1\n[ceilling]\n").unwrap();
    let outcome = invoke(&[
        "mosaic-federation",
        "policy",
        "check",
        dir.path().to_str().unwrap(),
    ]);
    assert_eq!(outcome.exit, Exit::Failed);
    assert!(outcome.errors.contains("10.toml:2:"), "{}", outcome.errors);
}

#[test]
fn schemas_are_json() {
    for arguments in [
        &["mosaic-federation", "policy", "schema"][..],
        &["mosaic-federation", "policy", "schema", "--settings"],
    ] {
        let outcome = invoke(arguments);
        assert_eq!(outcome.exit, Exit::Done);
        let schema: Value = serde_json::from_str(&outcome.out).unwrap();
        assert!(schema.get("properties").is_some());
    }
}

#[test]
fn doctor_without_a_process_checks_what_it_can() {
    let (dir, file) = settings(ASKING);
    std::fs::create_dir(dir.path().join("policy.d")).unwrap();
    let outcome = invoke(&["mosaic-federation", "--config", &file, "doctor", "--json"]);
    assert_eq!(outcome.exit, Exit::Done, "{}", outcome.out);
    let checks: Value = serde_json::from_str(&outcome.out).unwrap();
    let names: Vec<&str> = checks["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "settings",
            "policy files",
            "data directory",
            "clock",
            "process",
            "sealing secret",
            "ops.listen"
        ]
    );
    std::fs::write(dir.path().join("policy.d/a.toml"), "schema = 2\n").unwrap();
    let outcome = invoke(&["mosaic-federation", "--config", &file, "doctor"]);
    assert_eq!(outcome.exit, Exit::Failed);
    assert!(
        outcome.out.contains("FAIL  policy files: a.toml:1:"),
        "{}",
        outcome.out
    );
}

#[test]
fn the_health_check_fails_where_nobody_listens() {
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (_dir, file) = settings(&ASKING.replace("127.0.0.1:0", &address.to_string()));
    let outcome = invoke(&["mosaic-federation", "--config", &file, "healthcheck"]);
    assert_eq!(outcome.exit, Exit::Failed);
    assert!(outcome.errors.contains("why: "), "{}", outcome.errors);
}
