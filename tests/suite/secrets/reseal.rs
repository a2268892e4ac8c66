//! The sealing secret is changed while both sides work, and a kill behind any step of that loses nothing.

use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use certs::{SealPurpose, Sealer, SystemClock};
use proxy::admin::ResealStep;
use proxy::app::secrets;
use proxy::store::{Act, Actor, NewRenewal, SecretPurpose, Store};
use reference_gateway::plan;
use serde_json::{Value, json};
use tests::command::{Ran, command};
use tests::{Home, World};
use uuid::Uuid;

use super::support::contents::kept;
use super::support::copied;
use super::support::enroll::contains;
use super::support::onboard::{keys, onboard, truth};

const NEXT: &str = "0123456789abcdef0123456789abcdef-the-next-secret";

/// Writes a secret as the product would want it.
fn write(path: &Path, secret: &str) {
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o600);
    std::io::Write::write_all(&mut file.open(path).unwrap(), secret.as_bytes()).unwrap();
}

fn next_of(data: &Path) -> std::path::PathBuf {
    data.join("sealing.key.next")
}

async fn keys_command(dir: &Path, arguments: &[&str]) -> Ran {
    let config = dir.join("federation.toml").display().to_string();
    let fixed = ["--config", config.as_str(), "keys", "reseal"];
    let socket = dir.join("data").join("admin.sock");
    command(&socket, &[&fixed[..], arguments].concat()).await
}

fn document(ran: &Ran) -> Value {
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    serde_json::from_str(&ran.out).unwrap()
}

/// Every sealed value of a store, by kind and id.
async fn sealed(store: &dyn Store) -> Vec<(String, Vec<u8>)> {
    let none = [0; 8];
    let rows = store.rows_sealed_otherwise(&none, 1_000).await.unwrap();
    rows.into_iter()
        .map(|row| (format!("{} {}", row.kind.as_str(), row.id), row.sealed))
        .collect()
}

/// A renewal that has begun, so that there is one row of each kind.
async fn begin_renewal(home: &Home, sealer: &Sealer) {
    let store = &home.control().store;
    let credential = store.list_outbound_credentials().await.unwrap()[0].id;
    let id = Uuid::new_v4();
    let act = Act {
        id: home.control().draw_id(),
        actor: Actor::Sidecar("test"),
        now: home.control().now(),
    };
    let renewal = NewRenewal {
        credential,
        id,
        sealed_key: sealer
            .seal(SealPurpose::CredentialKey, &id.to_string(), b"a key")
            .unwrap(),
        csr_pem: String::new(),
    };
    let _ = store.begin_outbound_renewal(&act, renewal).await.unwrap();
}

async fn answers(home: &Home) {
    let session = home.session("alex").await;
    let body = json!({"params": {"limit": 1000}});
    let answer = home.ask(&session, "work", "/list/tasks", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(keys(&answer), truth("tasks", plan::AMIRA));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_changed_while_both_sides_work() {
    let world = World::start().await;
    let home = Home::start().await;
    onboard(&world, &home, "home", plan::AMIRA, "alex").await;
    begin_renewal(&home, &secrets::sealer(&home.config.seal).unwrap()).await;
    for (control, config, dir) in [
        (world.control(), &world.config, world.dir.path()),
        (home.control(), &home.config, home.dir.path()),
    ] {
        let data = dir.join("data");
        let before = sealed(&*control.store).await;
        let old = std::fs::read(data.join("sealing.key")).unwrap();

        let missing = keys_command(dir, &["start"]).await;
        assert_eq!(missing.exit, 1, "{}", missing.errors);
        assert!(
            missing.errors.contains("sealing.key.next"),
            "{}",
            missing.errors
        );
        let nothing = keys_command(dir, &["finish"]).await;
        assert_eq!(nothing.exit, 1, "{}", nothing.errors);
        write(&next_of(&data), std::str::from_utf8(&old).unwrap());
        let same = keys_command(dir, &["start"]).await;
        assert!(
            same.errors.contains("is the present one"),
            "{}",
            same.errors
        );

        write(&next_of(&data), NEXT);
        let started = document(&keys_command(dir, &["start", "--json"]).await);
        assert_eq!(started["resealed"], before.len(), "{started}");
        assert_eq!(started["left"], 0);
        let after = sealed(&*control.store).await;
        let names = |rows: &[(String, Vec<u8>)]| -> Vec<String> {
            rows.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&before), names(&after));
        // Once more changes nothing, and another secret is refused.
        let again = document(&keys_command(dir, &["start", "--json"]).await);
        assert_eq!(again["resealed"], 0);
        write(
            &next_of(&data),
            "another-secret-of-thirty-two-bytes-and-more",
        );
        let another = keys_command(dir, &["start"]).await;
        assert!(
            another.errors.contains("is being changed"),
            "{}",
            another.errors
        );
        write(&next_of(&data), NEXT);

        // While the settings give the secret before, the change does not end.
        let early = keys_command(dir, &["finish"]).await;
        assert_eq!(early.exit, 1, "{}", early.errors);
        assert!(
            early.errors.contains("the next start would fail"),
            "{}",
            early.errors
        );
        std::fs::rename(next_of(&data), data.join("sealing.key")).unwrap();
        let finished = document(&keys_command(dir, &["finish", "--json"]).await);
        assert_eq!(finished["key_id"], started["next_key_id"]);
        assert_eq!(finished["next_key_id"], Value::Null);

        // What the secret before had sealed is in no file any more, nor is that secret, or the next one.
        for (file, content) in kept(config).await {
            for (name, bytes) in &before {
                assert!(!contains(&content, bytes), "{name} is in {file}");
            }
            assert!(!contains(&content, &old), "{file}");
            let key = file.ends_with("sealing.key");
            assert_eq!(contains(&content, NEXT.as_bytes()), key, "{file}");
        }
        // And a value that it seals is not taken any more, however late it comes.
        write(&data.join("old"), std::str::from_utf8(&old).unwrap());
        let source = proxy::config::SealSource::File(data.join("old"));
        let late = secrets::sealer(&source).unwrap();
        std::fs::remove_file(data.join("old")).unwrap();
        let token = proxy::store::SubjectToken {
            user: "late".parse().unwrap(),
            sealed: late
                .seal(SealPurpose::SubjectToken, "late", b"token")
                .unwrap(),
        };
        let act = Act {
            id: control.draw_id(),
            actor: Actor::Sidecar("test"),
            now: control.now(),
        };
        let refused = control.store.put_subject_token(&act, token).await;
        assert!(refused.unwrap_err().to_string().contains("not in force"));
    }
    answers(&home).await;

    // Both start again with the next secret, and with no other.
    let dir = home.stop().await;
    let home = Home::start_in(dir, Arc::new(SystemClock)).await;
    answers(&home).await;
    let config = Arc::clone(&home.config);
    let dir = home.stop().await;
    write(
        &dir.path().join("data/sealing.key"),
        "a-secret-that-was-never-used-with-this",
    );
    let refused = proxy::app::start(config, Arc::new(SystemClock)).await;
    let refused = refused.err().unwrap().to_string();
    assert!(
        refused.contains("is not the one of this store"),
        "{refused}"
    );
    assert!(refused.contains("The sealing secret"), "{refused}");
    let world = world.restart().await;
    world.stop().await;
}

fn reseal_until(data: &Path, step: &str) -> ExitStatus {
    let now = certs::Clock::unix_millis(&SystemClock).to_string();
    Command::new(env!("CARGO_BIN_EXE_until"))
        .arg("reseal")
        .arg(data)
        .args([now.as_str(), step])
        .status()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_behind_any_step_can_be_gone_on_with() {
    if let Some(why) = copied::missing() {
        return super::support::skipped("a kill behind any step of sealing again", &why);
    }
    let world = World::start().await;
    let home = Home::start().await;
    onboard(&world, &home, "home", plan::AMIRA, "alex").await;
    begin_renewal(&home, &secrets::sealer(&home.config.seal).unwrap()).await;
    let stopped = home.stop().await;
    for step in ResealStep::ALL {
        // The settings give the secret before, or already the next one.
        for moved in [false, true] {
            let what = format!("{step:?}, moved: {moved}");
            let trial = tempfile::tempdir().unwrap();
            copied::copy(stopped.path(), trial.path());
            let data = trial.path().join("data");
            write(&next_of(&data), NEXT);
            let killed = reseal_until(&data, &format!("{step:?}"));
            assert_eq!(killed.signal(), Some(9), "{what}: {killed}");
            if moved {
                std::fs::rename(next_of(&data), data.join("sealing.key")).unwrap();
            }
            let ended = step == ResealStep::Finished;
            if ended && !moved {
                // The store knows the secret before no more.
                let settings =
                    std::fs::read_to_string(trial.path().join("federation.toml")).unwrap();
                let file = trial.path().join("federation.toml");
                let config = proxy::config::parse(Some((&file, &settings)), &[], &[]).unwrap();
                let refused = proxy::app::start(Arc::new(config), Arc::new(SystemClock)).await;
                let refused = refused.err().unwrap().to_string();
                assert!(
                    refused.contains("is not the one of this store"),
                    "{what}: {refused}"
                );
                continue;
            }
            let home = Home::start_in(trial, Arc::new(SystemClock)).await;
            answers(&home).await;
            let dir = home.dir.path().to_owned();
            if !ended {
                if moved {
                    // From where the settings have the present one, the next one cannot come any more: it is the same.
                    write(&next_of(&data), NEXT);
                }
                let started = document(&keys_command(&dir, &["start", "--json"]).await);
                assert_eq!(started["left"], 0, "{what}: {started}");
                std::fs::rename(next_of(&data), data.join("sealing.key")).unwrap();
                let finished = document(&keys_command(&dir, &["finish", "--json"]).await);
                assert_eq!(finished["next_key_id"], Value::Null, "{what}");
            }
            answers(&home).await;
            let trial = home.stop().await;
            let home = Home::start_in(trial, Arc::new(SystemClock)).await;
            answers(&home).await;
            let audit = home.control().verify_audit().await.unwrap();
            assert!(audit.finding.is_none(), "{what}: {audit:?}");
            let all = home
                .control()
                .store
                .load_secrets(SecretPurpose::CaKey)
                .await;
            assert_eq!(all.unwrap().len(), 1);
            drop(home.stop().await);
        }
    }
    world.stop().await;
}
