//! Redeeming enrollment tokens by hand, as a stranger could.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use certs::testing::Minted;
use certs::{PrivateKey, SystemClock};
use policy::id::GrantId;
use reference_gateway::plan;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use tests::{RawConnection, Response, World};

/// An enrollment URL taken apart.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub token: String,
    pub pin: [u8; 32],
}

impl Ticket {
    /// Of `https://host:port/api/federation/enrollment/<token>#sha256=<hex>`.
    pub fn of(url: &str) -> Self {
        let (rest, pin) = url.split_once("#sha256=").unwrap();
        let (_, token) = rest.rsplit_once('/').unwrap();
        assert_eq!(token.len(), 64);
        let bytes: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&pin[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        Self {
            token: token.to_owned(),
            pin: bytes.try_into().unwrap(),
        }
    }
}

/// A pending grant and the ticket for it.
pub async fn ticket(world: &World) -> (GrantId, Ticket) {
    let grant = world
        .pending(plan::AMIRA, json!({"resources": ["tasks"]}))
        .await;
    let url = world.enrollment_url(grant.id).await;
    (grant.id, Ticket::of(&url))
}

/// A new key and a request for a certificate over it.
pub fn request() -> (PrivateKey, String) {
    let key = PrivateKey::generate_p256().unwrap();
    let csr = key.csr_pem("home").unwrap();
    (key, csr)
}

/// Sends `{"csrPem"}` to the enrollment listener whose root has this pin.
pub async fn redeem(
    listener: SocketAddr,
    pin: [u8; 32],
    token: &str,
    csr_pem: &str,
) -> std::io::Result<Response> {
    let config = certs::tls::pinned_client_config(pin, Arc::new(SystemClock)).unwrap();
    let mut connection = RawConnection::open(listener, config).await?;
    let path = format!("/api/federation/enrollment/{token}");
    let body = json!({"csrPem": csr_pem}).to_string();
    connection.post(&path, &body).await?;
    connection.response().await
}

/// The certificate of an answer, with its key.
pub fn taken(answer: &Response, key: PrivateKey) -> Minted {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let chain = answer.json()["certChainPem"].as_str().unwrap().to_owned();
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap);
    Minted::of(chain.collect(), key)
}

/// Every byte of every file of a data directory, the sealing secret left out: that is what the
/// database must be safe without.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && name != "sealing.key" {
            files.push((name, std::fs::read(&path).unwrap()));
        }
    }
    let has_database = files.iter().any(|(name, _)| name == "federation.db");
    assert_ne!(has_database, tests::database::is_postgres());
    files
}

/// Whether `needle` stands in `bytes`.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    assert!(needle.len() >= 8);
    let first = needle[0];
    bytes
        .windows(needle.len())
        .any(|window| window[0] == first && window == needle)
}
