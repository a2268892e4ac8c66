//! What revocation lists cost: a handshake with nothing and with 10,000 certificates revoked, and the way of a list of
//! 10,000 from its bytes into force.
//!
//! usage: cargo run --release -p certs --example crlbench
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use certs::ca::{CLIENT_LIFETIME, SERVER_LIFETIME};
use certs::crl::publish::{CrlIssue, Revoked};
use certs::crl::{CrlIssuers, CrlTerms, RevocationReason};
use certs::publish::channel;
use certs::{
    CertificateAuthority as _, ClientIssue, Clock as _, Credential, CrlSet, EmbeddedCa,
    LiveClientVerifier, LiveServerResolver, PrivateKey, RevocationList, RevokedSet, Serial,
    ServerIssue, SystemClock, TrustAnchors, VerifiedCsr, tls,
};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use uuid::Uuid;

const REVOKED: u32 = 10_000;
const ROUNDS: usize = 15;
const HANDSHAKES: usize = 100;

type Failure = Box<dyn std::error::Error>;

/// A future of the embedded authority, which waits for nobody.
fn ready<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err("it waits".into()),
    }
}

struct Side {
    ca: EmbeddedCa,
    anchors: Arc<TrustAnchors>,
    client: Arc<ClientConfig>,
    server: Credential,
}

impl Side {
    fn new() -> Result<Self, Failure> {
        let now = SystemClock.unix_seconds();
        let material = EmbeddedCa::generate("bench", now, &SystemRandom::new())?;
        let ca = EmbeddedCa::load(material.root, &material.key)?;
        let anchors = Arc::new(TrustAnchors::new(1, vec![ca.root().clone()])?);
        let request = || -> Result<(PrivateKey, VerifiedCsr), Failure> {
            let key = PrivateKey::generate_p256()?;
            let csr = VerifiedCsr::parse(&key.csr_pem("bench")?)?;
            Ok((key, csr))
        };
        let (key, csr) = request()?;
        let issued = ready(ca.issue_client(ClientIssue {
            id: Uuid::new_v4(),
            csr,
            grant: Uuid::new_v4(),
            subject: Uuid::new_v4(),
            lifetime: CLIENT_LIFETIME,
            not_after_cap: None,
            now,
        }))??;
        let credential = Credential::new(issued.chain(), &key)?;
        let client =
            tls::peer_client_config(&credential, Arc::clone(&anchors), Arc::new(SystemClock))?;
        let (key, csr) = request()?;
        let issued = ready(ca.issue_server(ServerIssue {
            csr,
            names: vec![ServerName::try_from("bench.example")?],
            lifetime: SERVER_LIFETIME,
            now,
        }))??;
        let server = Credential::new(issued.chain(), &key)?;
        Ok(Self {
            ca,
            anchors,
            client,
            server,
        })
    }

    /// The listener's configuration with this list in force.
    fn listener(&self, list: RevocationList) -> Result<Arc<ServerConfig>, Failure> {
        let terms = CrlTerms {
            required: true,
            ..CrlTerms::default()
        };
        let (_, anchors) = channel((*self.anchors).clone());
        let (_, rows) = channel(RevokedSet::default());
        let (_, lists) = channel(CrlSet::new(terms).with(Arc::new(list)));
        let (_, credential) = channel(Credential::clone(&self.server));
        let verifier = LiveClientVerifier::new(anchors, rows).with_lists(lists);
        let resolver = LiveServerResolver::new(credential);
        Ok(tls::federation_server_config(
            verifier,
            resolver,
            Arc::new(SystemClock),
        )?)
    }
}

/// One whole handshake, in memory.
fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(), Failure> {
    let name = ServerName::try_from("bench.example")?;
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        let mut from = wire.as_slice();
        while !from.is_empty() {
            server.read_tls(&mut from)?;
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire)?;
        }
        let mut from = wire.as_slice();
        while !from.is_empty() {
            client.read_tls(&mut from)?;
            client.process_new_packets()?;
        }
    }
    black_box(&server);
    Ok(())
}

fn main() -> Result<(), Failure> {
    let side = Side::new()?;
    let now = SystemClock.unix_seconds();
    let issuers = CrlIssuers::new(&side.anchors, &[], now);
    let revoked = (0..REVOKED)
        .map(|_| {
            let mut octets = Uuid::new_v4().into_bytes();
            if let Some(first) = octets.first_mut() {
                *first = *first & 0x7f | 0x40;
            }
            Ok(Revoked {
                serial: Serial::decode(&octets)?,
                at: now,
                reason: RevocationReason::PrivilegeWithdrawn,
            })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let sign = |number, revoked| {
        side.ca.sign_crl(&CrlIssue {
            number,
            now,
            revoked,
        })
    };
    let empty = sign(1, Vec::new())?;
    let began = Instant::now();
    let full = sign(2, revoked)?;
    let signed = began.elapsed();
    let began = Instant::now();
    let list = RevocationList::verify(&full, &issuers, now)?;
    let read = began.elapsed();
    println!(
        "list of {REVOKED}: {} bytes, made in {signed:.1?}",
        full.len()
    );
    println!("from its bytes into force: {read:.1?}");
    let bare = side.listener(RevocationList::verify(&empty, &issuers, now)?)?;
    let loaded = side.listener(list)?;
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for (best, server) in best.iter_mut().zip([&bare, &loaded]) {
            let began = Instant::now();
            for _ in 0..HANDSHAKES {
                handshake(&side.client, server)?;
            }
            *best = (*best).min(began.elapsed());
        }
    }
    let [bare, loaded] = best.map(|best| best.as_secs_f64() * 1e6 / HANDSHAKES as f64);
    println!(
        "handshake, both sides: {bare:.1} us with nothing revoked, {loaded:.1} us with {REVOKED}"
    );
    println!("ratio {:.4}", loaded / bare);
    Ok(())
}
