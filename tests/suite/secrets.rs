//! Tokens and keys are in no log and no file in the clear.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "secrets/life.rs"]
mod life;
#[path = "secrets/reseal.rs"]
mod reseal;
mod support;

use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::{SealPurpose, Sealer};
use proxy::app::secrets;
use proxy::store::SecretPurpose;
use reference_gateway::plan;
use serde_json::{Value, json};
use support::contents::kept;
use support::enroll::{contains, redeem, request, ticket};
use support::process::Process;
use tests::{Home, World};

fn scope() -> Value {
    json!({"resources": ["tasks"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_in_no_log_and_no_file_beyond_their_beginning() {
    let world = World::start().await;
    let (_, good) = ticket(&world).await;
    let (_, unused) = ticket(&world).await;
    let unknown = "5eed".repeat(16);
    let process = Process::take_over(world, "trace").await;
    for token in [good.token.as_str(), &good.token, &unknown] {
        let (_, csr) = request();
        redeem(process.enrollment, good.pin, token, &csr)
            .await
            .unwrap();
    }
    let home = Home::start().await;
    // The port in a URL is that of the listener of the time; only the token is looked up.
    let url = format!(
        "https://{}/api/federation/enrollment/{}#sha256={}",
        process.enrollment,
        unused.token,
        unused
            .pin
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    );
    home.add_peer(&url, "amira", "work").await.unwrap();
    let session = home.session("amira").await;
    // Lines arrive when they arrive: wait for the last act that is looked for.
    let logged = async {
        loop {
            let log = process.log.lock().unwrap().clone();
            if log.contains(&good.token[..8]) && log.contains(&unused.token[..8]) {
                break log;
            }
            tokio::task::yield_now().await;
        }
    };
    let log = tokio::time::timeout(std::time::Duration::from_secs(10), logged)
        .await
        .expect("the acts are in the log");
    let mut all = kept(&process.config()).await;
    all.extend(kept(&home.config).await);
    for token in [good.token, unused.token, unknown, session] {
        // More than the eight that may be shown; in the database an id follows these, which may go on as the token does.
        let more = &token[..12];
        assert!(!log.contains(more), "{more} is in the log");
        let bytes: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&token[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        for (name, content) in &all {
            assert!(!contains(content, more.as_bytes()), "{more} in {name}");
            assert!(!contains(content, &bytes), "{more} in {name}, raw");
        }
    }
    home.stop().await;
}

/// The ways in which bytes could lie in a file in the clear.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ];
    for shift in 0..3 {
        // Whatever stands before it, one of the three alignments is that of the file. The last
        // characters depend on what follows.
        let text = STANDARD.encode(&secret[shift..]);
        all.push(text.as_bytes()[..text.len() - 8].to_vec());
    }
    all
}

/// The private number of a P-256 key: the OCTET STRING of 32 bytes in its PKCS#8.
fn scalar(pkcs8: &[u8]) -> &[u8] {
    let at = pkcs8
        .windows(2)
        .position(|two| two == [0x04, 0x20])
        .unwrap();
    &pkcs8[at + 2..at + 34]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_lies_in_the_database_in_the_clear() {
    let world = World::start().await;
    world.let_in(plan::AMIRA).await;
    let grant = world.pending(plan::AMIRA, scope()).await;
    let url = world.enrollment_url(grant.id).await;
    let home = Home::start().await;
    home.add_peer(&url, "amira", "work").await.unwrap();
    let mut secrets_of_both: Vec<(&str, Vec<u8>)> = Vec::new();
    let authority = world.ca.private_key();
    secrets_of_both.push(("the authority's key", authority.pkcs8().to_vec()));
    secrets_of_both.push(("the authority's number", scalar(authority.pkcs8()).to_vec()));
    let home_sealer = secrets::sealer(&home.config.seal).unwrap();
    let credentials = home
        .control()
        .store
        .list_outbound_credentials()
        .await
        .unwrap();
    for credential in &credentials {
        let row = credential.id.as_hyphenated().to_string();
        let key = home_sealer
            .unseal(SealPurpose::CredentialKey, &row, &credential.sealed_key)
            .unwrap();
        secrets_of_both.push(("a credential's key", key.to_vec()));
        secrets_of_both.push(("a credential's number", scalar(&key).to_vec()));
    }
    assert_eq!(credentials.len(), 1);
    let world_sealer = secrets::sealer(&world.config.seal).unwrap();
    let unseal = async |sealer: &Sealer, stored, sealed_as| {
        let all = world.control().store.load_secrets(stored).await.unwrap();
        let one = all.first().unwrap();
        sealer
            .unseal(sealed_as, &one.id, &one.sealed)
            .unwrap()
            .to_vec()
    };
    let revision = unseal(
        &world_sealer,
        SecretPurpose::RevisionKey,
        SealPurpose::RevisionKey,
    )
    .await;
    let cursor = unseal(
        &world_sealer,
        SecretPurpose::CursorKey,
        SealPurpose::CursorKey,
    )
    .await;
    secrets_of_both.push(("the revision key", revision));
    secrets_of_both.push(("the cursor key", cursor));
    let token = "a-gateway-token-for-nobody-else-to-read";
    world.let_in_with(plan::BEN, token).await;
    secrets_of_both.push(("a gateway token", token.as_bytes().to_vec()));
    for config in [&world.config, &home.config] {
        let sealing = config.data_dir.join("sealing.key");
        let mode = std::fs::metadata(&sealing).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let secret = std::fs::read(&sealing).unwrap();
        secrets_of_both.push(("a sealing secret", secret));
    }
    // The harness makes the other one itself.
    let mode = std::fs::metadata(&home.config.data_dir)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "the data directory is its owner's alone");
    let mut all = kept(&world.config).await;
    all.extend(kept(&home.config).await);
    for (name, content) in &all {
        for (what, secret) in &secrets_of_both {
            for spelling in spellings(secret) {
                assert!(!contains(content, &spelling), "{what} in {name}");
            }
        }
        assert!(!contains(content, b"PRIVATE KEY"), "{name}");
    }
    // The search finds what does lie there: the certificates are public.
    let der = world
        .control()
        .store
        .list_certificates(grant.id)
        .await
        .unwrap();
    assert!(
        all.iter()
            .any(|(_, content)| contains(content, &der[0].der))
    );
    home.stop().await;
    world.stop().await;
}
