//! Where revocation lists are read: files, directories of files, addresses, and the CRL of a step-ca.
//!
//! Invariant: files are looked at twice a second and addresses as often as configured; what a place holds is offered whole,
//! and a place that cannot be read keeps what it had. The last good lists of each place are in the store, so that a restart
//! does not forget them.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use certs::crl::{self, CrlError, CrlIssuers};
use certs::{Clock, TrustAnchors, TrustReceiver};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::effect::Effect;
use super::lists::{Lists, Offer};
use crate::store::Store;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often a file that looks the same is read all the same.
const REREAD: u32 = 120;
/// How often what is wrong is said again, in looks.
const LOUD: u32 = 120;
/// Most files of a directory.
const MAX_FILES: usize = 1_000;

/// What was fetched.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The content; `None` where there is no list.
    pub content: Option<Vec<u8>>,
    /// Certificates that came along and may be issuers of lists.
    pub above: Vec<CertificateDer<'static>>,
}

/// Fetches lists from elsewhere.
#[async_trait]
pub trait FetchList: Send + Sync {
    /// Fetches them.
    ///
    /// # Errors
    /// Why not, in words.
    async fn fetch(&self) -> Result<Fetched, String>;
}

/// One place.
pub enum Place {
    /// A file, or a directory of files.
    Path(PathBuf),
    /// Elsewhere.
    Remote {
        /// How it is shown.
        name: String,
        /// How it is read.
        from: Arc<dyn FetchList>,
    },
}

/// What reading takes.
pub struct PlacesParts {
    /// Where.
    pub places: Vec<Place>,
    /// Certificates of issuers besides the anchors.
    pub issuers: Vec<CertificateDer<'static>>,
    /// The anchors that issuers must lead to.
    pub anchors: TrustReceiver,
    /// How often remote places are read.
    pub refresh: Duration,
    /// What is in force.
    pub lists: Arc<Lists>,
    /// What is taken away for it.
    pub effect: Effect,
    /// Where it is kept.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Reads lists.
pub struct Places {
    parts: PlacesParts,
    /// Issuers that are known besides the anchors: configured, kept, or seen.
    issuers: Mutex<HashSet<CertificateDer<'static>>>,
    /// How each file looked when it was read.
    marks: Mutex<BTreeMap<PathBuf, Mark>>,
}

/// What tells that a file is another: length, time of change, device and inode.
type Mark = (u64, i64, i64, u64, u64);

impl Places {
    /// Puts what was kept in force, and reads every place once.
    ///
    /// # Errors
    /// A text for the operator when the store cannot be read.
    pub async fn open(parts: PlacesParts) -> Result<Arc<Self>, String> {
        let kept = parts
            .store
            .kept_lists()
            .await
            .map_err(|error| error.to_string())?;
        let places = Arc::new(Self {
            issuers: Mutex::new(parts.issuers.iter().cloned().collect()),
            marks: Mutex::default(),
            parts,
        });
        let mut by_place: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for one in kept {
            let configured = places.parts.places.iter().any(|place| match place {
                Place::Path(path) => Path::new(&one.source).starts_with(path),
                Place::Remote { name, .. } => *name == one.source,
            });
            // Of a place that was taken out of the settings nothing counts.
            if configured {
                places
                    .issuers
                    .lock()
                    .insert(CertificateDer::from(one.issuer));
                by_place.entry(one.source).or_default().push(one.der);
            }
        }
        let issuers = places.issuers();
        for (place, content) in by_place {
            places.parts.lists.restore(&place, &content, &issuers);
        }
        for place in &places.parts.places {
            match place {
                Place::Path(path) => places.parts.lists.announce(&path.display().to_string()),
                Place::Remote { name, .. } => places.parts.lists.announce(name),
            }
        }
        let remote = places
            .remotes()
            .map(|(name, from)| places.read_remote(name, from));
        let remote: Vec<_> = remote.collect();
        for one in remote {
            one.await;
        }
        places.look_at_files(true).await;
        places.parts.effect.take().await;
        places.parts.lists.look(true);
        Ok(places)
    }

    /// Reads until `stop` turns true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut tasks = tokio::task::JoinSet::new();
        let remotes: Vec<(String, Arc<dyn FetchList>)> = self
            .remotes()
            .map(|(name, from)| (name.to_owned(), Arc::clone(from)))
            .collect();
        for (name, from) in remotes {
            let this = Arc::clone(&self);
            tasks.spawn(async move {
                loop {
                    tokio::time::sleep(this.parts.refresh).await;
                    this.read_remote(&name, &from).await;
                }
            });
        }
        let mut looks: u32 = 0;
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(LOOK) => {}
            }
            looks = looks.wrapping_add(1);
            self.look_at_files(looks.is_multiple_of(REREAD)).await;
            self.parts.effect.retry().await;
            self.parts.lists.look(looks.is_multiple_of(LOUD));
        }
        tasks.abort_all();
    }

    fn remotes(&self) -> impl Iterator<Item = (&str, &Arc<dyn FetchList>)> {
        self.parts.places.iter().filter_map(|place| match place {
            Place::Remote { name, from } => Some((name.as_str(), from)),
            Place::Path(_) => None,
        })
    }

    fn issuers(&self) -> CrlIssuers {
        let anchors: Arc<TrustAnchors> = self.parts.anchors.load();
        let others: Vec<CertificateDer<'static>> = self.issuers.lock().iter().cloned().collect();
        CrlIssuers::new(&anchors, &others, self.parts.clock.unix_seconds())
    }

    async fn read_remote(&self, name: &str, from: &Arc<dyn FetchList>) {
        let fetched = match from.fetch().await {
            Ok(fetched) => fetched,
            Err(why) => return self.parts.lists.failed(name, why),
        };
        self.learn(fetched.above);
        match fetched.content {
            Some(content) => self.offer(name, content).await,
            None => self
                .parts
                .lists
                .failed(name, "it publishes no revocation list".to_owned()),
        }
    }

    /// Takes certificates up that may be issuers; those that lead to no anchor never count.
    fn learn(&self, above: Vec<CertificateDer<'static>>) {
        let anchors = self.parts.anchors.load();
        let found = CrlIssuers::new(&anchors, &above, self.parts.clock.unix_seconds());
        let mut issuers = self.issuers.lock();
        let before = issuers.len();
        issuers.extend(found.certificates().cloned());
        if issuers.len() != before {
            // A list that was foreign may be one of theirs.
            self.marks.lock().clear();
        }
    }

    /// Offers the content of a place, off the threads that serve others.
    async fn offer(&self, place: &str, content: Vec<u8>) {
        let (lists, issuers, name) = (
            Arc::clone(&self.parts.lists),
            self.issuers(),
            place.to_owned(),
        );
        let work = move || match crl::split(&content) {
            Ok(content) => lists.offer(&name, &content, &issuers),
            Err(error) => {
                lists.failed(&name, error.to_string());
                Offer::Refused(error)
            }
        };
        let offered = tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| {
                tracing::error!(%error, place, "reading revocation lists broke off");
                Offer::Refused(CrlError::Empty)
            });
        if let Offer::Changed(kept) = offered {
            tracing::info!(place, lists = kept.len(), "revocation lists are in force");
            self.parts.effect.take().await;
            if let Err(error) = self.parts.store.keep_lists(place, &kept).await {
                tracing::error!(%error, place, "revocation lists could not be kept for the next start");
            }
        }
    }

    /// Reads the files that have changed, or all.
    async fn look_at_files(&self, all: bool) {
        let paths: Vec<PathBuf> = self
            .parts
            .places
            .iter()
            .filter_map(|place| match place {
                Place::Path(path) => Some(path.clone()),
                Place::Remote { .. } => None,
            })
            .collect();
        for path in paths {
            self.look_at(&path, all).await;
        }
    }

    async fn look_at(&self, path: &Path, all: bool) {
        let (shown, inside) = (path.display().to_string(), path.to_owned());
        let found = tokio::task::spawn_blocking(move || files(&inside)).await;
        let found = match found
            .map_err(|error| error.to_string())
            .and_then(|found| found)
        {
            Ok(found) => found,
            Err(why) => return self.parts.lists.failed(&shown, why),
        };
        for place in self.parts.lists.places() {
            let file = Path::new(&place);
            let below = file != path && file.starts_with(path);
            if below && !found.contains_key(file) && self.parts.lists.end(&place) {
                if let Err(error) = self.parts.store.keep_lists(&place, &[]).await {
                    tracing::warn!(%error, place, "revocation lists of a file that is gone could not be forgotten");
                }
                self.parts.effect.take().await;
            }
        }
        forget_gone(&mut self.marks.lock(), path, &found);
        // A directory is known by its files.
        if !found.contains_key(path) && !found.is_empty() {
            self.parts.lists.end(&shown);
        }
        for (file, mark) in found {
            if !all && self.marks.lock().get(&file) == Some(&mark) {
                continue;
            }
            let name = file.display().to_string();
            let reading = file.clone();
            match tokio::task::spawn_blocking(move || read(&reading)).await {
                Ok(Ok(content)) => self.offer(&name, content).await,
                Ok(Err(error)) => self.parts.lists.failed(&name, error),
                Err(error) => self.parts.lists.failed(&name, error.to_string()),
            }
            self.marks.lock().insert(file, mark);
        }
    }
}

/// Drops the marks of files below `path` that are not there any more.
fn forget_gone(marks: &mut BTreeMap<PathBuf, Mark>, path: &Path, found: &BTreeMap<PathBuf, Mark>) {
    marks.retain(|file, _| !file.starts_with(path) || found.contains_key(file));
}

/// The files of a path: itself, or those of a directory that do not begin with a dot.
fn files(path: &Path) -> Result<BTreeMap<PathBuf, Mark>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_dir() {
        return Ok(BTreeMap::from([(path.to_owned(), mark(&about))]));
    }
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().first() == Some(&b'.') {
            continue;
        }
        // Through links: configuration maps are made of them.
        let about = match std::fs::metadata(entry.path()) {
            // Gone since it was listed, or a link that leads nowhere: the others count all the same.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            about => about.map_err(failed)?,
        };
        if about.is_file() {
            found.insert(entry.path(), mark(&about));
        }
        if found.len() > MAX_FILES {
            return Err(format!("has more than {MAX_FILES} files"));
        }
    }
    if found.is_empty() {
        return Err("is a directory without files".to_owned());
    }
    Ok(found)
}

fn mark(about: &std::fs::Metadata) -> Mark {
    (
        about.len(),
        about.mtime(),
        about.mtime_nsec(),
        about.dev(),
        about.ino(),
    )
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let most = u64::try_from(crl::MAX_BYTES).unwrap_or(u64::MAX);
    let mut content = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(most.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(failed)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_gone_leave_no_mark() {
        let mark = (1, 2, 3, 4, 5);
        let of = |names: &[&str]| -> BTreeMap<PathBuf, Mark> {
            names
                .iter()
                .map(|name| (PathBuf::from(name), mark))
                .collect()
        };
        let mut marks = of(&["/d/gone", "/d/there", "/dd/other", "/file"]);
        forget_gone(&mut marks, Path::new("/d"), &of(&["/d/there", "/d/new"]));
        assert_eq!(marks, of(&["/d/there", "/dd/other", "/file"]));
    }
}
