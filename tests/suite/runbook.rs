//! The runbooks say what works: each step of each page is run, in order, by a shell against two sidecars as processes.
//!
//! A block below `<!-- run: SIDE -->` is a step on one of the two machines, `work` (which serves) or `home` (which asks);
//! a comment `<!-- check: SIDE` holds commands that must succeed at that point. A page that begins with
//! `<!-- begins: onboarded -->` finds the two as `onboard.md` leaves them. Directories and names of a machine become those
//! of the test; `systemctl` starts and stops the process of the side.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reference_gateway::plan;
use reference_gateway::store::seed::Data;
use support::onboard::{users, whole_scope};
use support::process::program;
use tempfile::TempDir;
use tests::GatewayProcess;

/// What a page is run with.
const PRELUDE: &str = r#"
set -euo pipefail
side() {
  SIDE=$1
  cd "$ROOT/$SIDE"
  export MOSAIC_FEDERATION_CONFIG=$PWD/etc/federation.toml
}
stop_side() {
  [ -e pid ] || return 0
  kill "$(cat pid)"
  while kill -0 "$(cat pid)" 2>/dev/null; do sleep 0.05; done
  rm pid
}
start_side() {
  mosaic-federation serve >>log 2>&1 &
  echo $! >pid
  until mosaic-federation status >/dev/null 2>&1; do
    kill -0 "$(cat pid)" 2>/dev/null || { tail -5 log >&2; rm pid; return 1; }
    sleep 0.05
  done
}
systemctl() {
  case $1 in
    stop) stop_side ;;
    start) start_side ;;
    restart) stop_side; start_side ;;
    *) echo "systemctl $1 is not known to the test" >&2; return 1 ;;
  esac
}
# refused WORD COMMAND: the command fails, and says the word.
refused() {
  local word=$1 said; shift
  if said=$("$@" 2>&1); then echo "succeeded: $*: $said" >&2; return 1; fi
  case $said in *"$word"*) ;; *) echo "$*: no $word in: $said" >&2; return 1 ;; esac
}
trap 'for pid in "$ROOT"/*/pid; do [ -e "$pid" ] && kill -9 "$(cat "$pid")" 2>/dev/null; done; true' EXIT
side work; start_side
side home; start_side
"#;

/// For a page, seconds: a step that waits for what never comes must say where.
const PATIENCE_S: &str = "120";

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

/// The steps and checks of a page, as a shell script, and how many there are of each.
fn script(text: &str) -> (String, usize, usize) {
    let (mut out, mut steps, mut checks) = (String::new(), 0, 0);
    for part in text.split("<!-- ").skip(1) {
        let (head, rest) = part.split_once(['\n', ' ']).unwrap();
        let (kind, rest) = match head {
            "run:" | "check:" => (head, rest),
            _ => continue,
        };
        let (side, rest) = rest.split_once([' ', '\n']).unwrap();
        assert!(["work", "home"].contains(&side), "{side}");
        let body = if kind == "run:" {
            steps += 1;
            let (_, fenced) = rest.split_once("```sh\n").expect("a block of sh");
            fenced.split_once("```").unwrap().0
        } else {
            checks += 1;
            rest.split_once("-->").unwrap().0
        };
        let body = body
            .replace("/etc/mosaic-federation", "$ROOT/$SIDE/etc")
            .replace("/var/lib/mosaic-federation", "$ROOT/$SIDE/data")
            .replace("--user amira", &format!("--user {}", plan::AMIRA))
            .replace("forget amira", &format!("forget {}", plan::AMIRA));
        writeln!(
            out,
            "side {side}\necho '-- {kind} {side} {}' >&2\n{body}",
            steps + checks
        )
        .unwrap();
    }
    (out, steps, checks)
}

/// A loopback port that nobody uses now.
fn free_port() -> u16 {
    let probe = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    probe.local_addr().unwrap().port()
}

fn write(path: PathBuf, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).unwrap();
}

/// Two machines with a gateway and settings each, the program on `PATH`, and nothing between them.
async fn machines() -> (TempDir, GatewayProcess) {
    let root = tempfile::tempdir().unwrap();
    let gateway = GatewayProcess::start(root.path(), Data::Plan, None).await;
    let bin = root.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(program(), bin.join("mosaic-federation")).unwrap();
    let (work, home) = (root.path().join("work"), root.path().join("home"));
    let (federation, enrollment) = (free_port(), free_port());
    let settings = format!(
        "data_dir = \"../data\"\n[roles]\nask = false\n\
         [federation]\nlisten = \"127.0.0.1:{federation}\"\npublic_url = \"https://127.0.0.1:{federation}\"\ndrain_s = 1\n\
         [enrollment]\nlisten = \"127.0.0.1:{enrollment}\"\npublic_url = \"https://127.0.0.1:{enrollment}\"\n\
         [ops]\nlisten = \"127.0.0.1:0\"\n\
         [gateway]\nurl = \"{}\"\npreset = \"internal-v1\"\n[policy]\ndir = \"policy.d\"\n\
         [seal]\nsecret_file = \"sealing-secret\"\n[lease]\nduration_ms = 500\n[limits]\nrenewal_overlap_s = 1\n",
        gateway.url()
    );
    write(work.join("etc/federation.toml"), &settings);
    write(work.join("etc/sealing-secret"), &"5a".repeat(32));
    let policy = "schema = 1\n[ceiling]\nresources = [\"tasks\", \"notes\", \"memory\", \"projects\", \"missions\"]\n";
    write(work.join("etc/policy.d/10-base.toml"), policy);
    write(work.join("amira.token"), &users()[plan::AMIRA].token());
    write(
        work.join("scope.json"),
        &whole_scope(plan::AMIRA).to_string(),
    );
    let settings = format!(
        "data_dir = \"../data\"\n[roles]\nserve = false\n[ops]\nlisten = \"127.0.0.1:0\"\n\
         [gateway]\nurl = \"{}\"\npreset = \"internal-v1\"\n[policy]\ndir = \"policy.d\"\n\
         [seal]\nsecret_file = \"sealing-secret\"\n",
        gateway.url()
    );
    write(home.join("etc/federation.toml"), &settings);
    write(home.join("etc/policy.d/10-base.toml"), policy);
    write(home.join("etc/sealing-secret"), &"a5".repeat(32));
    (root, gateway)
}

/// Runs a page from its first step to its last.
async fn run(name: &str) {
    let text = page(name);
    let mut all = PRELUDE.to_owned();
    if text.starts_with("<!-- begins: onboarded -->") {
        all.push_str(&script(&page("onboard.md")).0);
    }
    let (own, steps, checks) = script(&text);
    assert!(
        steps > 0 && checks > 0,
        "{name}: {steps} steps, {checks} checks"
    );
    all.push_str(&own);
    let (root, mut gateway) = machines().await;
    let path = format!(
        "{}/bin:{}",
        root.path().display(),
        std::env::var("PATH").unwrap()
    );
    let mut shell = Command::new("timeout");
    shell
        .args(["--kill-after=5", PATIENCE_S, "bash", "-c", &all])
        .env("ROOT", root.path())
        .env("PATH", path)
        .env_remove("MOSAIC_SESSION_TOKEN")
        .stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || shell.output().unwrap())
        .await
        .unwrap();
    let log = |side: &str| {
        std::fs::read_to_string(root.path().join(side).join("log")).unwrap_or_default()
    };
    assert!(
        ran.status.success(),
        "{name}\n{}\n{}\nwork: {}\nhome: {}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
        log("work"),
        log("home")
    );
    gateway.stop().await;
}

/// A test for each page, so that a page without one is found.
macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                run($page).await;
            }
        )*

        #[test]
        fn every_page_is_run() {
            let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
            let found = std::fs::read_dir(docs).unwrap();
            let mut found: Vec<_> = found
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name != "README.md")
                .collect();
            found.sort();
            let mut run = vec![$($page),*];
            run.sort_unstable();
            assert_eq!(found, run);
        }
    };
}

pages! {
    onboard: "onboard.md",
    ca_rollover: "ca-rollover.md",
    rotate: "rotate.md",
    revoke: "revoke.md",
    restore: "restore.md",
    lost_sealing_secret: "lost-sealing-secret.md",
}
