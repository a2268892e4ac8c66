//! A whole life of both sides, and no secret of it anywhere: not in the databases and their logs, the journals, what the processes
//! say at trace level, what they leave when they crash, nor in what any command prints.
//!
//! Invariant: the search is proved in the same run, by finding the same secrets, in each spelling, where they were put on purpose. What
//! a command exists to hand out once (an enrollment URL, a session token) is looked for everywhere but in that one output.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certs::SealPurpose;
use certs::ca::CaMaterial;
use policy::time::UnixMillis;
use proxy::app::secrets;
use proxy::config::{Config, SealSource};
use proxy::store::SecretPurpose;
use reference_gateway::plan;
use serde_json::{Value, json};
use tests::command::command;
use tests::{Home, World};
use tokio::net::UnixStream;

use super::support::contents::write_tables;
use super::support::process::{Process, program};
use super::support::reader::PATIENCE;
use super::support::search::files;
use super::{scalar, spellings};

const PURPOSES: [(SecretPurpose, SealPurpose); 5] = [
    (SecretPurpose::RevisionKey, SealPurpose::RevisionKey),
    (SecretPurpose::CursorKey, SealPurpose::CursorKey),
    (SecretPurpose::AuditKey, SealPurpose::AuditKey),
    (SecretPurpose::CheckpointKey, SealPurpose::CheckpointKey),
    (SecretPurpose::AssertionKey, SealPurpose::AssertionKey),
];
const GATEWAY_TOKEN: &str = "gateway-token-of-ben-that-nobody-else-may-read";

/// Secrets by what they are, and everything that commands have printed.
#[derive(Default)]
struct Found {
    secrets: Vec<(String, Vec<u8>)>,
    printed: Vec<(String, String)>,
}

impl Found {
    fn add(&mut self, what: &str, secret: &[u8]) {
        if !self.secrets.iter().any(|(_, known)| known == secret) {
            self.secrets.push((what.to_owned(), secret.to_vec()));
        }
    }

    /// A key, and the number in it.
    fn add_key(&mut self, what: &str, pkcs8: &[u8]) {
        self.add(what, pkcs8);
        self.add(what, scalar(pkcs8));
    }

    /// Everything that is sealed in the store of a side now, and what it is sealed with.
    async fn read(&mut self, dir: &Path) {
        let file = dir.join("data/sealing.key");
        self.add("sealing secret", std::fs::read(&file).unwrap().trim_ascii());
        let sealer = secrets::sealer(&SealSource::File(file)).unwrap();
        let config = settings(dir);
        let store = proxy::tier::open_store(&config, UnixMillis(0));
        let store = store.await.unwrap();
        for (stored, sealed_as) in PURPOSES {
            for secret in store.load_secrets(stored).await.unwrap() {
                let plain = sealer
                    .unseal(sealed_as, &secret.id, &secret.sealed)
                    .unwrap();
                self.add(stored.as_str(), &plain);
            }
        }
        for secret in store.load_secrets(SecretPurpose::CaKey).await.unwrap() {
            let plain = sealer
                .unseal(SealPurpose::CaKey, &secret.id, &secret.sealed)
                .unwrap();
            self.add_key("root", CaMaterial::decode(&plain).unwrap().key.pkcs8());
        }
        for one in store.list_outbound_credentials().await.unwrap() {
            if one.sealed_key.is_empty() {
                continue;
            }
            let row = one.id.as_hyphenated().to_string();
            let plain = sealer.unseal(SealPurpose::CredentialKey, &row, &one.sealed_key);
            self.add_key("credential", &plain.unwrap());
        }
    }
}

/// The settings of a side.
fn settings(dir: &Path) -> Config {
    let file = dir.join("federation.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    tests::world::configuration(file, &text)
}

/// The asking side as a process that may dump core, as far as the system is asked.
struct Asking {
    child: Child,
    dir: PathBuf,
}

impl Asking {
    async fn start(dir: &Path) -> Self {
        let log = std::fs::File::create(dir.join("log.txt")).unwrap();
        let child = Command::new("sh")
            .args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""])
            .arg(program())
            .args(["serve", "--set", "log.level=trace", "--config"])
            .arg(dir.join("federation.toml"))
            .current_dir(dir)
            .env("TMPDIR", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let dir = dir.to_owned();
        let asking = Self { child, dir };
        let listens = async {
            while UnixStream::connect(asking.dir.join("data/admin.sock"))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens).await.unwrap();
        asking
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // It may be dead already.
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A command of a side, whose output is kept.
async fn run(found: &mut Found, dir: &Path, arguments: &[&str]) -> Value {
    let config = dir.join("federation.toml").display().to_string();
    let fixed = ["--config", config.as_str(), "--json"];
    let socket = dir.join("data/admin.sock");
    let ran = command(&socket, &[&fixed[..], arguments].concat()).await;
    assert_eq!(ran.exit, 0, "{arguments:?}: {} {}", ran.out, ran.errors);
    let value = serde_json::from_str(&ran.out).unwrap_or(Value::Null);
    found
        .printed
        .push((arguments.join(" "), ran.out + &ran.errors));
    value
}

/// `doctor` finds something to say of a side that is not one of a production.
async fn doctor(found: &mut Found, dir: &Path) {
    let config = dir.join("federation.toml").display().to_string();
    let socket = dir.join("data/admin.sock");
    let ran = command(&socket, &["--config", &config, "--json", "doctor"]).await;
    assert!(
        ran.out.contains("sealing secret"),
        "{} {}",
        ran.out,
        ran.errors
    );
    found
        .printed
        .push(("doctor".to_owned(), ran.out + &ran.errors));
}

/// The output of the last command is what it exists to hand out.
fn handed_out(found: &mut Found) {
    drop(found.printed.pop());
}

/// Exchanges the sealing secret of a side.
async fn reseal(found: &mut Found, dir: &Path, secret: &str) {
    let next = dir.join("data/sealing.key.next");
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .open(&next)
        .unwrap();
    std::io::Write::write_all(&mut file, secret.as_bytes()).unwrap();
    run(found, dir, &["keys", "reseal", "start"]).await;
    std::fs::rename(&next, dir.join("data/sealing.key")).unwrap();
    run(found, dir, &["keys", "reseal", "finish"]).await;
    run(found, dir, &["keys", "reseal", "status"]).await;
}

async fn enroll(found: &mut Found, work: &Path, home: &Path, grant: &str, replace: &[&str]) {
    let token = [&["grant", "token", grant], replace].concat();
    let url = run(found, work, &token).await;
    handed_out(found);
    let url = url["url"].as_str().unwrap().to_owned();
    let (_, token) = url.split_once("#").unwrap().0.rsplit_once('/').unwrap();
    found.add("enrollment token", token.as_bytes());
    run(
        found,
        home,
        &["peer", "add", &url, "--user", "alex", "--name", "work"],
    )
    .await;
}

/// Commands that only look, on both sides.
const LOOKS: [&[&str]; 11] = [
    &["status"],
    &["grant", "list"],
    &["peer", "list"],
    &["cert", "list"],
    &["session", "list", "--all"],
    &["audit", "query", "--limit", "1000"],
    &["audit", "verify"],
    &["keys", "reseal", "status"],
    &["ca", "rotate", "status"],
    &["ca", "export"],
    &["policy", "schema"],
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_whole_life_is_anywhere() {
    let world = World::builder()
        .settings("[limits]\nrenewal_overlap_s = 1\n")
        .start()
        .await;
    let mut listen = Vec::new();
    // A balancer stays where it is.
    if world.beside.is_none() {
        listen.push(format!("federation.listen={}", world.federation()));
        listen.push(format!("enrollment.listen={}", world.enrollment()));
    }
    let work = Process::take_over_with(world, "trace", listen).await;
    let (work_dir, mut found) = (work.dir.path().to_owned(), Found::default());
    let home_dir = Home::start().await.stop().await;
    let home = Asking::start(home_dir.path()).await;
    let home_path = home_dir.path().to_owned();

    // Onboarding.
    let outside = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = outside.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let token = file("token", GATEWAY_TOKEN);
    found.add("gateway token", GATEWAY_TOKEN.as_bytes());
    let of_amira = plan::plan()
        .users
        .into_iter()
        .find(|user| user.id == plan::AMIRA);
    let of_amira = of_amira.unwrap().token();
    let own = file("own", &of_amira);
    for (user, token) in [(plan::BEN, &token), (plan::AMIRA, &own)] {
        run(
            &mut found,
            &work_dir,
            &[
                "gateway",
                "token",
                "set",
                "--user",
                user,
                "--token-file",
                token,
            ],
        )
        .await;
    }
    let scope = file("scope", &json!({"resources": ["tasks"]}).to_string());
    let created = [
        "grant",
        "create",
        "--user",
        plan::AMIRA,
        "--peer",
        "home",
        "--scope",
        &scope,
    ];
    let grant = run(&mut found, &work_dir, &created).await;
    let grant = grant["id"].as_str().unwrap().to_owned();
    enroll(&mut found, &work_dir, &home_path, &grant, &[]).await;
    let session = run(
        &mut found,
        &home_path,
        &["session", "create", "--user", "alex"],
    )
    .await;
    handed_out(&mut found);
    let session = session["token"].as_str().unwrap().to_owned();
    found.add("session token", session.as_bytes());
    let list = ["query", "list", "tasks", "--peer", "work", "--user", "alex"];
    run(&mut found, &home_path, &list).await;
    for data in [&work_dir, &home_path] {
        found.read(data).await;
    }

    // Renewal, another sealing secret on both sides, another root.
    run(&mut found, &home_path, &["cert", "renew"]).await;
    found.read(&home_path).await;
    for (dir, secret) in [(&work_dir, "0f".repeat(32)), (&home_path, "1e".repeat(32))] {
        reseal(&mut found, dir, &secret).await;
        found.read(dir).await;
    }
    run(&mut found, &work_dir, &["ca", "rotate", "plan"]).await;
    run(&mut found, &work_dir, &["ca", "rotate", "apply"]).await;
    found.read(&work_dir).await;
    let followed = async {
        loop {
            run(&mut found, &home_path, &list).await;
            let view = run(&mut found, &work_dir, &["ca", "rotate", "status"]).await;
            if view["waiting"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, followed).await.unwrap();
    run(&mut found, &work_dir, &["ca", "rotate", "finish"]).await;
    found.read(&home_path).await;

    // Everything is looked at; then it ends: enrolled anew, revoked.
    let asks = [
        &["grant", "show", grant.as_str()][..],
        &["peer", "show", "home"],
    ];
    for look in asks {
        run(&mut found, &work_dir, look).await;
    }
    for dir in [&work_dir, &home_path] {
        for look in LOOKS {
            run(&mut found, dir, look).await;
        }
        doctor(&mut found, dir).await;
        let export = outside.path().join("export").display().to_string();
        run(&mut found, dir, &["audit", "export", "--to", &export]).await;
        let text = std::fs::read(&export).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        found.printed.push(("the export".to_owned(), text));
        std::fs::remove_file(&export).unwrap();
    }
    enroll(&mut found, &work_dir, &home_path, &grant, &["--replace"]).await;
    found.read(&home_path).await;
    let serial = run(&mut found, &work_dir, &["cert", "list"]).await;
    let certificates = serial["items"].as_array().unwrap();
    let issued = certificates
        .iter()
        .find(|one| one["role"] == "issued" && one["state"] == "active");
    let serial = issued.unwrap()["serial"].as_str().unwrap().to_owned();
    run(&mut found, &work_dir, &["cert", "revoke", &serial]).await;
    run(&mut found, &work_dir, &["grant", "revoke", &grant]).await;

    // Both crash, as hard as they can.
    for process in [home.child.id(), work.id()] {
        for signal in ["-SEGV", "-SEGV", "-ABRT", "-KILL"] {
            let sent = Command::new("kill")
                .args([signal, &process.to_string()])
                .status();
            // It may have ended in between.
            let _sent = sent.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    drop(home);
    for dir in [&work_dir, &home_path] {
        write_tables(&settings(dir), &dir.join("data")).await;
    }
    search(
        &found,
        &[&work_dir.join("data"), &home_path],
        &work.log.lock().unwrap(),
    );
}

/// The spellings of a secret, also in the alphabet of URLs.
fn needles(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut all = spellings(secret);
    for shift in 0..3 {
        let text = URL_SAFE_NO_PAD.encode(&secret[shift..]);
        all.push(text.as_bytes()[..text.len() - 8].to_vec());
    }
    all.sort();
    all.dedup();
    all
}

fn search(found: &Found, dirs: &[&Path], log: &str) {
    let kinds: std::collections::BTreeSet<&str> = found
        .secrets
        .iter()
        .map(|(what, _)| what.as_str())
        .collect();
    for kind in [
        "sealing secret",
        "root",
        "credential",
        "enrollment token",
        "session token",
        "gateway token",
        "audit_key",
        "checkpoint_key",
        "revision_key",
        "cursor_key",
    ] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
    let count = |kind: &str| {
        found
            .secrets
            .iter()
            .filter(|(what, _)| what == kind)
            .count()
    };
    assert!(count("sealing secret") >= 4 && count("root") >= 4 && count("credential") >= 6);
    let mut places: Vec<(String, Vec<u8>)> = vec![("the log".to_owned(), log.as_bytes().to_vec())];
    for path in dirs.iter().flat_map(|dir| files(dir)) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name != "core" && !name.starts_with("core."), "{path:?}");
        // That is where the sealing secret lies.
        if name != "sealing.key" {
            places.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    for (what, text) in &found.printed {
        places.push((format!("the output of {what}"), text.clone().into_bytes()));
    }
    assert!(places.len() > 50, "{}", places.len());
    assert!(log.len() > 10_000, "trace says much");
    let wanted = Wanted::of(&found.secrets);
    for (name, content) in &places {
        let hit = wanted.first_in(content);
        assert_eq!(hit, None, "in {name}");
    }
    // The same search finds each, in every spelling, where it is.
    for (what, needle) in &wanted.needles {
        let planted = [b"before ", needle.as_slice(), b" behind"].concat();
        assert!(wanted.first_in(&planted).is_some(), "{what}");
    }
}

/// How much of the beginning of a spelling is looked up.
const HEAD: usize = 8;

/// Every spelling of every secret, to be looked for all at once.
struct Wanted {
    needles: Vec<(String, Vec<u8>)>,
    by_head: std::collections::HashMap<[u8; HEAD], Vec<usize>>,
}

impl Wanted {
    fn of(secrets: &[(String, Vec<u8>)]) -> Self {
        let spelled = |(what, secret): &(String, Vec<u8>)| {
            let what = what.clone();
            needles(secret)
                .into_iter()
                .map(move |needle| (what.clone(), needle))
        };
        let needles: Vec<_> = secrets.iter().flat_map(spelled).collect();
        let mut by_head: std::collections::HashMap<_, Vec<usize>> = Default::default();
        for (number, (_, needle)) in needles.iter().enumerate() {
            let head = needle[..HEAD].try_into().unwrap();
            by_head.entry(head).or_default().push(number);
        }
        Self { needles, by_head }
    }

    /// What secret is in `content`, if one is.
    fn first_in(&self, content: &[u8]) -> Option<&str> {
        content.windows(HEAD).enumerate().find_map(|(at, window)| {
            let numbers = self.by_head.get(window)?;
            let here = |number: &&usize| content[at..].starts_with(&self.needles[**number].1);
            let found = numbers.iter().find(here)?;
            Some(self.needles[*found].0.as_str())
        })
    }
}
