//! The certificate of our own listeners: issued by our authority or a step-ca and issued again in time, or read from files and
//! read again when they change.
//!
//! Invariant: what is in force is always whole (`certs::server_identity`). An exchange of files that is half done, or
//! wrong, and an authority that fails, keep the last good one and are loud: in the log, in a metric, in `status` and
//! in `doctor`. Connections that stand are not touched.

mod kept;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::ca::SERVER_LIFETIME;
use certs::clock::Clock;
use certs::publish::{Publisher, Receiver, channel};
use certs::rotation::{Jitter, Life, Tries};
use certs::server_identity::{ServerIdentity, ServerTexts};
use certs::{CertificateAuthority, Credential, PrivateKey, ServerIssue, StepCa, VerifiedCsr};
use parking_lot::Mutex;
use policy::time::UnixMillis;
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

use crate::store::{ServerCertificateRecord, Store};
use crate::telemetry::Metrics;

pub use kept::{KEPT_CERTIFICATE, KeptCertificate};

/// How often files and the remaining life are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Largest of the files, bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Permission bits that a file with a private key must not have: read or write for others, write for the group.
const FORBIDDEN_MODE: u32 = 0o026;
const MILLIS_PER_SECOND: i64 = 1_000;

/// Where certificate, key and roots are, when they are files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// The chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
    /// The roots that peers are given, PEM.
    pub roots: Option<PathBuf>,
    /// The root, PEM, where the chain does not end with it.
    pub root: Option<PathBuf>,
}

/// Where the certificate comes from.
pub enum ServerSource {
    /// Our own authority, and where it is noted what it has issued, so that every process can answer for it.
    Authority(Arc<dyn CertificateAuthority>, Arc<dyn Store>),
    /// A step-ca, and what it issued last.
    Step(Arc<StepCa>, Arc<KeptCertificate>),
    /// Files of the operator's.
    Files(ServerFiles),
}

impl ServerSource {
    /// Who issues, where somebody does.
    fn issuer(&self) -> Option<&dyn CertificateAuthority> {
        match self {
            Self::Authority(authority, _) => Some(&**authority),
            Self::Step(step, _) => Some(&**step),
            Self::Files(_) => None,
        }
    }

    /// Issues one, and keeps it where a later start or another process may need it.
    async fn issue(
        &self,
        authority: &dyn CertificateAuthority,
        names: &[ServerName<'static>],
        now: i64,
    ) -> Result<ServerIdentity, String> {
        let (identity, key) = issue(authority, names, now).await?;
        match self {
            Self::Step(_, kept) => {
                if let Err(why) = kept.keep(&key, identity.credential()) {
                    tracing::error!(
                        why,
                        "the server certificate could not be kept: a start while the step-ca is down would be refused"
                    );
                }
            }
            Self::Authority(_, store) => {
                note(store.as_ref(), identity.credential(), now).await?;
            }
            Self::Files(_) => {}
        }
        Ok(identity)
    }
}

/// Why the certificate in force is older than it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ServerFailure {
    /// Since when.
    pub at: UnixMillis,
    /// Why.
    pub message: String,
}

/// What was last tried.
#[derive(Default)]
struct Tried {
    failure: Option<ServerFailure>,
    tries: Tries,
}

/// The texts of the files, as read.
#[derive(PartialEq, Eq)]
struct Texts {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    roots: Option<Vec<u8>>,
    root: Option<Vec<u8>>,
}

/// Keeps the certificate of our listeners in force.
pub struct ServerCertificate {
    source: ServerSource,
    names: Vec<ServerName<'static>>,
    publisher: Publisher<ServerIdentity>,
    in_force: Receiver<ServerIdentity>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tried: Mutex<Tried>,
    /// What was read last, so that the same files are judged once.
    read: tokio::sync::Mutex<Option<Texts>>,
}

impl ServerCertificate {
    /// Issues or reads the first one, good for all of `names`.
    ///
    /// # Errors
    /// Why there is none, in words for the operator.
    pub async fn open(
        source: ServerSource,
        names: &[String],
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, String> {
        let names = names.iter().map(|name| parse_name(name));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let now = clock.unix_seconds();
        let mut unfit = None;
        let (identity, read) = match &source {
            ServerSource::Files(files) => {
                let texts = read(files)?;
                (identity_of(files, &texts, &names, now)?, Some(texts))
            }
            ServerSource::Authority(authority, _) => {
                (source.issue(&**authority, &names, now).await?, None)
            }
            ServerSource::Step(step, kept) => match source.issue(&**step, &names, now).await {
                Ok(identity) => (identity, None),
                Err(why) => {
                    let identity = again(kept, &**step, &names, now)
                        .map_err(|unkept| format!("{why}; and {unkept}"))?;
                    unfit = Some(why);
                    (identity, None)
                }
            },
        };
        metrics.certificate_expiry("server", "", identity.credential().not_after());
        let (publisher, in_force) = channel(identity);
        let opened = Arc::new(Self {
            source,
            names,
            publisher,
            in_force,
            clock,
            metrics,
            tried: Mutex::default(),
            read: tokio::sync::Mutex::new(read),
        });
        if let Some(why) = unfit {
            let now = now.saturating_mul(MILLIS_PER_SECOND);
            opened.tried.lock().tries.last_at = Some(now);
            opened.failed(why, now);
        }
        Ok(opened)
    }

    /// The one in force.
    #[must_use]
    pub fn current(&self) -> Arc<ServerIdentity> {
        self.in_force.load()
    }

    /// A reader of the one in force.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<ServerIdentity> {
        self.in_force.clone()
    }

    /// Where it comes from: `embedded`, `step-ca` or `files`.
    #[must_use]
    pub const fn source(&self) -> &'static str {
        match self.source {
            ServerSource::Authority(..) => "embedded",
            ServerSource::Step(..) => "step-ca",
            ServerSource::Files(_) => "files",
        }
    }

    /// Why the one in force is older than it should be, if it is.
    #[must_use]
    pub fn failure(&self) -> Option<ServerFailure> {
        self.tried.lock().failure.clone()
    }

    /// Reads the files again, or issues anew if that is due; true when another one is in force now. What connects from
    /// then on meets it.
    ///
    /// # Errors
    /// Why the one in force stays, in words for the operator.
    pub async fn refresh(&self) -> Result<bool, String> {
        let mut known = self.read.lock().await;
        let now = self.clock.unix_millis();
        let renewed = match (&self.source, self.source.issuer()) {
            (_, Some(authority)) if self.is_due(now) => {
                self.tried.lock().tries.last_at = Some(now);
                let seconds = now.div_euclid(MILLIS_PER_SECOND);
                let issued = self.source.issue(authority, &self.names, seconds);
                issued.await.map(Some)
            }
            (ServerSource::Files(files), _) => self.reread(files, &mut known, now),
            _ => return Ok(false),
        };
        match renewed {
            Ok(None) => self.good(false),
            Ok(Some(identity)) => {
                let end = identity.credential().not_after();
                self.publisher
                    .publish(identity)
                    .map_err(|error| error.to_string())?;
                self.metrics.certificate_expiry("server", "", end);
                tracing::info!(not_after = end, "another server certificate is in force");
                self.good(true)
            }
            Err(why) => Err(self.failed(why, now)),
        }
    }

    /// Issues anew at once, since the roots of our authority have changed; nothing is done where the certificate is not of it.
    ///
    /// # Errors
    /// Why the one in force stays, in words for the operator.
    pub async fn reissue(&self) -> Result<(), String> {
        // Held so that nothing else replaces it meanwhile.
        let _one = self.read.lock().await;
        let ServerSource::Authority(authority, _) = &self.source else {
            return Ok(());
        };
        let now = self.clock.unix_millis();
        let seconds = now.div_euclid(MILLIS_PER_SECOND);
        let issued = self.source.issue(&**authority, &self.names, seconds).await;
        let identity = issued.map_err(|why| self.failed(why, now))?;
        let end = identity.credential().not_after();
        self.publisher
            .publish(identity)
            .map_err(|error| error.to_string())?;
        self.metrics.certificate_expiry("server", "", end);
        tracing::info!(
            not_after = end,
            "the server certificate is of the roots in force"
        );
        self.good(true).map(drop)
    }

    fn reread(
        &self,
        files: &ServerFiles,
        known: &mut Option<Texts>,
        now: i64,
    ) -> Result<Option<ServerIdentity>, String> {
        let texts = read(files)?;
        let same = known.as_ref() == Some(&texts);
        let stands = self.tried.lock().failure.is_none();
        if same && stands {
            return Ok(None);
        }
        let seconds = now.div_euclid(MILLIS_PER_SECOND);
        let identity = identity_of(files, &texts, &self.names, seconds);
        *known = Some(texts);
        let identity = identity?;
        // Back to what is in force after something broken: no news.
        let in_force = self.in_force.load();
        let back = identity.credential().fingerprint() == in_force.credential().fingerprint()
            && identity.roots_pem() == in_force.roots_pem();
        Ok((!back).then_some(identity))
    }

    /// Whether the one in force is to be replaced by our authority.
    fn is_due(&self, now: i64) -> bool {
        let credential = self.in_force.load();
        let credential = credential.credential();
        let life = Life {
            begins: credential.not_before().saturating_mul(MILLIS_PER_SECOND),
            ends: credential.not_after().saturating_mul(MILLIS_PER_SECOND),
        };
        // A third of the life is left. Past its end a server certificate can still be replaced, unlike a client's.
        let third = life.ends.saturating_sub(life.length() / 3);
        let (tries, has_failed) = {
            let tried = self.tried.lock();
            (tried.tries, tried.failure.is_some())
        };
        let again = match tries.last_at {
            Some(last) => last
                .min(now)
                .saturating_add(life.back_off(tries.failures, Jitter::NONE)),
            None => third,
        };
        // One of an earlier start is replaced as soon as that can be done.
        now >= if has_failed { again } else { third.max(again) }
    }

    fn good(&self, renewed: bool) -> Result<bool, String> {
        let mut tried = self.tried.lock();
        if tried.failure.take().is_some() {
            tracing::info!("the server certificate is as it should be again");
        }
        tried.tries = Tries::default();
        Ok(renewed)
    }

    /// Notes a failure; the same one is told once.
    fn failed(&self, why: String, now: i64) -> String {
        let mut tried = self.tried.lock();
        tried.tries.failures = tried.tries.failures.saturating_add(1);
        if tried
            .failure
            .as_ref()
            .is_none_or(|known| known.message != why)
        {
            tracing::error!(
                why,
                "the server certificate could not be replaced: the last good one stays in force"
            );
            self.metrics.server_certificate_failed();
            tried.failure = Some(ServerFailure {
                at: UnixMillis(now),
                message: why.clone(),
            });
        }
        why
    }

    /// Looks again and again; never returns.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            // A failure is told where it is found.
            let _ = self.refresh().await;
        }
    }
}

fn parse_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        format!(
            "`{name}` is neither a host name nor an address; check `tls.server_names` and the public URLs"
        )
    })
}

async fn issue(
    authority: &dyn CertificateAuthority,
    names: &[ServerName<'static>],
    now: i64,
) -> Result<(ServerIdentity, PrivateKey), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let key = PrivateKey::generate_p256().map_err(|error| said(&error))?;
    let csr = key
        .csr_pem("mosaic-federation")
        .map_err(|error| said(&error))?;
    let csr = VerifiedCsr::parse(&csr).map_err(|error| said(&error))?;
    let issued = authority
        .issue_server(ServerIssue {
            csr,
            names: names.to_vec(),
            lifetime: SERVER_LIFETIME,
            now,
        })
        .await
        .map_err(|error| said(&error))?;
    let credential =
        Credential::new(issued.chain_with_root(), &key).map_err(|error| said(&error))?;
    let identity = ServerIdentity::new(credential, authority.anchors(), names, now);
    Ok((identity.map_err(|error| said(&error))?, key))
}

/// Notes one that our authority has issued.
async fn note(store: &dyn Store, issued: &Credential, now: i64) -> Result<(), String> {
    let leaf = issued.chain().first().ok_or("its chain is empty")?;
    let record = ServerCertificateRecord {
        fingerprint: issued.fingerprint(),
        serial: issued.serial().as_str().to_owned(),
        der: leaf.to_vec(),
        not_after: UnixMillis(issued.not_after().saturating_mul(MILLIS_PER_SECOND)),
    };
    let now = UnixMillis(now.saturating_mul(MILLIS_PER_SECOND));
    let noted = store.record_server_certificate(&record, now).await;
    noted.map_err(|error| format!("it could not be noted in the store: {error}"))
}

/// The certificate of an earlier start, if it is still as good as one that were issued now.
fn again(
    kept: &KeptCertificate,
    authority: &dyn CertificateAuthority,
    names: &[ServerName<'static>],
    now: i64,
) -> Result<ServerIdentity, String> {
    let found = kept.find()?;
    let unfit = |error: &dyn std::fmt::Display| {
        format!("the one of an earlier start cannot be used: {error}")
    };
    let key = found.key.to_pem();
    let credential = Credential::from_pem(found.chain.as_bytes(), key.as_bytes())
        .map_err(|error| unfit(&error))?;
    ServerIdentity::new(credential, authority.anchors(), names, now).map_err(|error| unfit(&error))
}

fn identity_of(
    files: &ServerFiles,
    texts: &Texts,
    names: &[ServerName<'static>],
    now: i64,
) -> Result<ServerIdentity, String> {
    let (certificate, key) = (files.certificate.display(), files.key.display());
    let parsed = PrivateKey::from_pem(&texts.key).map_err(|error| format!("`{key}`: {error}"))?;
    let texts = ServerTexts {
        chain: &texts.chain,
        key: &parsed,
        root: texts.root.as_deref(),
        roots: texts.roots.as_deref(),
    };
    ServerIdentity::from_texts(&texts, names, now)
        .map_err(|error| format!("`{certificate}` with `{key}`: {error}"))
}

fn read(files: &ServerFiles) -> Result<Texts, String> {
    let optional = |path: &Option<PathBuf>| {
        path.as_deref()
            .map(|path| read_file(path, false).map(|text| text.to_vec()))
            .transpose()
    };
    Ok(Texts {
        chain: read_file(&files.certificate, false)?.to_vec(),
        key: read_file(&files.key, true)?,
        roots: optional(&files.roots)?,
        root: optional(&files.root)?,
    })
}

fn read_file(path: &Path, is_secret: bool) -> Result<Zeroizing<Vec<u8>>, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("`{shown}` cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    // Of the open file, not of the path: the two could be exchanged in between.
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    if is_secret && mode & FORBIDDEN_MODE != 0 {
        return Err(format!(
            "`{shown}` has mode {mode:04o}, so others can read or change the private key; run `chmod 600` on it"
        ));
    }
    if metadata.len() > MAX_FILE {
        return Err(format!("`{shown}` is too large for a certificate or key"));
    }
    // Room for all of it, so that the buffer never moves and leaves a copy behind.
    let room = usize::try_from(metadata.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(room.saturating_add(1)));
    file.take(MAX_FILE)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}
