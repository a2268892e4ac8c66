//! Revocation lists of this process: which are made, which are read, and who is told.
//!
//! Invariant: before a listener accepts, our own list is up to date, and every place that lists are read from has been read
//! once. What runs on is in the tasks.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use certs::ca::RotatingCa;
use certs::ca::step::{StepRequest, StepTransport as _};
use certs::crl::CrlTerms;
use certs::identity::issued_by;
use certs::publish::channel;
use certs::{CrlReceiver, CrlSet, StepCa, TrustReceiver};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Base, StartError};
use crate::config::Ca;
use crate::directory::Directory;
use crate::enrollment::HttpsToStep;
use crate::revocation::{
    Effect, FetchList, Fetched, Lists, Place, Places, PlacesParts, Progress, PublishedCrl, Telling,
};

/// What others need of it.
pub(super) struct Revocation {
    /// The lists in force.
    pub(super) lists: Arc<Lists>,
    /// The same, for verifiers.
    pub(super) receiver: CrlReceiver,
    /// Our own list, when our own authority signs for peers.
    pub(super) published: Option<Arc<PublishedCrl>>,
}

impl Revocation {
    /// Makes and reads what there is.
    ///
    /// # Errors
    /// [`StartError::Authority`] when a file of the settings cannot be used, or our own list cannot be made at all.
    pub(super) async fn open(
        base: &Base,
        own: &Arc<RotatingCa>,
        step: Option<&Arc<StepCa>>,
        directory: &Arc<Directory>,
        anchors: TrustReceiver,
        tasks: &mut JoinSet<()>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let settings = &base.config.revocation;
        let grace = i64::try_from(settings.grace.as_secs()).unwrap_or(i64::MAX);
        let terms = CrlTerms {
            required: settings.required,
            grace,
        };
        let (publisher, receiver) = channel(CrlSet::new(terms));
        let lists = Arc::new(Lists::new(
            terms,
            publisher,
            Arc::clone(&base.clock),
            Arc::clone(&base.metrics),
        ));
        if !base.config.roles.serve {
            // Nobody shows this process a certificate.
            return Ok(Self {
                lists,
                receiver,
                published: None,
            });
        }
        let published = match step {
            Some(step) => {
                let telling = Telling {
                    step: Arc::clone(step),
                    own: issued_by(own.roots().listeners.root()).map(|(issuer, _)| issuer),
                    store: Arc::clone(&base.store),
                    directory: Arc::clone(directory),
                    clock: Arc::clone(&base.clock),
                    metrics: Arc::clone(&base.metrics),
                };
                tasks.spawn(telling.run(stopped.clone()));
                None
            }
            None => {
                let published = PublishedCrl::open(
                    Arc::clone(own),
                    Arc::clone(&base.store),
                    Arc::clone(directory),
                    Arc::clone(&lists),
                    Arc::clone(&base.clock),
                    Arc::clone(&base.metrics),
                )
                .await
                .map_err(|why| StartError::Authority(format!("no revocation list: {why}")))?;
                tasks.spawn(Arc::clone(&published).run(stopped.clone()));
                Some(published)
            }
        };
        let places = Places::open(PlacesParts {
            places: places(base, step)?,
            issuers: issuers(settings.issuers_file.as_deref())?,
            anchors,
            refresh: settings.refresh,
            lists: Arc::clone(&lists),
            effect: Effect {
                lists: receiver.clone(),
                store: Arc::clone(&base.store),
                directory: Arc::clone(directory),
                clock: Arc::clone(&base.clock),
                metrics: Arc::clone(&base.metrics),
                progress: Progress::default(),
            },
            store: Arc::clone(&base.store),
            clock: Arc::clone(&base.clock),
        })
        .await
        .map_err(StartError::Authority)?;
        tasks.spawn(places.run(stopped.clone()));
        Ok(Self {
            lists,
            receiver,
            published,
        })
    }
}

/// The places of the settings, and the list of the step-ca.
fn places(base: &Base, step: Option<&Arc<StepCa>>) -> Result<Vec<Place>, StartError> {
    let settings = &base.config.revocation;
    let mut places: Vec<Place> = settings.files.iter().cloned().map(Place::Path).collect();
    let root = settings.root_file.as_deref().or(match &base.config.ca {
        Ca::Step { root_file, .. } => Some(root_file.as_path()),
        Ca::Embedded => None,
    });
    for url in &settings.urls {
        let root = root.ok_or_else(|| StartError::Internal("a root file is missing".to_owned()))?;
        let [root] = certificates(root)?.try_into().map_err(|_| {
            let file = root.display();
            StartError::Authority(format!("`{file}` does not hold exactly one certificate"))
        })?;
        let (origin, path) = url.split();
        let transport = HttpsToStep::new(origin, root, Arc::clone(&base.clock))
            .map_err(StartError::Authority)?;
        places.push(Place::Remote {
            name: url.to_string(),
            from: Arc::new(OfUrl {
                transport,
                path: path.to_owned(),
            }),
        });
    }
    if let Some(step) = step {
        places.push(Place::Remote {
            name: "step-ca".to_owned(),
            from: Arc::new(OfStep(Arc::clone(step))),
        });
    }
    Ok(places)
}

fn issuers(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, StartError> {
    file.map_or_else(|| Ok(Vec::new()), certificates)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let failed = |why: String| StartError::Authority(format!("`{}`: {why}", file.display()));
    let text = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read.map_err(|error| failed(error.to_string()))? {
        none if none.is_empty() => Err(failed("holds no PEM certificate".to_owned())),
        some => Ok(some),
    }
}

/// A list at an address.
struct OfUrl {
    transport: HttpsToStep,
    path: String,
}

#[async_trait]
impl FetchList for OfUrl {
    async fn fetch(&self) -> Result<Fetched, String> {
        let request = StepRequest {
            path: &self.path,
            body: None,
        };
        let answer = self
            .transport
            .send(request)
            .await
            .map_err(|e| e.to_string())?;
        match answer.status {
            200 => Ok(Fetched {
                content: Some(answer.body),
                above: answer.chain.into_iter().skip(1).collect(),
            }),
            status => Err(format!("the answer has status {status}")),
        }
    }
}

/// The list of the step-ca that signs for peers.
struct OfStep(Arc<StepCa>);

#[async_trait]
impl FetchList for OfStep {
    async fn fetch(&self) -> Result<Fetched, String> {
        let fetched = self
            .0
            .fetch_crl()
            .await
            .map_err(|error| error.to_string())?;
        Ok(fetched.map_or_else(Fetched::default, |list| Fetched {
            content: Some(list.der),
            above: list.above,
        }))
    }
}
