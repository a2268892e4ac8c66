//! Looks after the policy directory: what its files become is put in force without being asked.
//!
//! Invariant: a set of files is tried when it is seen first and not again until something of it changes; a set that cannot be
//! applied leaves the last good one in force and is told in log, metric and `status`. A slow poll is the guarantee; the watch
//! only makes it quick, so whatever the file system does not tell costs time and nothing else.
//!
//! Watched are the directory and the entry of it in its parent: editors replace files, mounted volumes swap a link
//! (`..data`), operators replace the directory.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::identity::fingerprint;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, watch};

use crate::admin::{AdminCode, Control};
use crate::policy_files;
use crate::store::Actor;

/// Silence after a change before the files are read: writers are given time to finish.
const QUIET: Duration = Duration::from_millis(200);
/// The longest that changes without a pause hold reading up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the files were when they were tried last.
type Mark = [u8; 32];

/// Looks after the directory until told to stop.
pub(super) struct PolicyWatch {
    control: Arc<Control>,
    dir: PathBuf,
    poll: Duration,
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of the directory that the watch is on.
    watched: Option<(u64, u64)>,
    tried: Option<Mark>,
}

impl PolicyWatch {
    /// Looks after `dir`; without a watch the poll alone does it.
    pub(super) fn new(control: Arc<Control>, dir: PathBuf, poll: Duration, quick: bool) -> Self {
        let changed = Arc::new(Notify::new());
        let watcher = quick.then(|| watcher(&dir, &changed)).flatten();
        let mut made = Self {
            control,
            dir,
            poll,
            changed,
            watcher,
            watched: None,
            tried: None,
        };
        made.follow();
        // What the start has read is not tried again; what came since then is. The watch is on before this look, so that
        // nothing falls between.
        let found = mark(&made.dir);
        let in_force = made.control.directory.view().policy.hash == hex::encode(found);
        // Where another replica has published the policy, files are tried once they change.
        let known = in_force || made.control.directory.follows_others();
        made.tried = known.then_some(found);
        made
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        if self.tried.is_none() {
            self.look().await;
        }
        loop {
            let changed = Arc::clone(&self.changed);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(self.poll) => {}
                () = settle(&changed) => {}
            }
            self.follow();
            self.look().await;
        }
    }

    /// Puts the watch on the directory that is there now.
    fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let present = std::fs::metadata(&self.dir)
            .ok()
            .map(|found| (found.dev(), found.ino()));
        if present == self.watched {
            return;
        }
        // The watch on one that is gone went with it.
        let _ = watcher.unwatch(&self.dir);
        self.watched = match watcher.watch(&self.dir, RecursiveMode::NonRecursive) {
            Ok(()) => present,
            Err(error) => {
                tracing::warn!(%error, dir = %self.dir.display(), "the policy directory cannot be watched; it is read every {} s", self.poll.as_secs());
                None
            }
        };
    }

    /// Tries the files if they are not those tried last.
    async fn look(&mut self) {
        let dir = self.dir.clone();
        let Ok(mark) = tokio::task::spawn_blocking(move || mark(&dir)).await else {
            return;
        };
        if self.tried == Some(mark) {
            return;
        }
        let before = self.control.directory.view().policy.hash.clone();
        match self
            .control
            .reload_policy(&Actor::Sidecar("policy-watch"))
            .await
        {
            Ok(_) => {
                self.tried = Some(mark);
                let now = self.control.directory.view();
                if now.policy.hash != before {
                    tracing::info!(hash = ?now.policy.hash, "the policy files changed and are in force");
                }
            }
            Err(failure) => {
                // What is wrong with the files stays wrong until they change; anything else may have passed at the next look.
                let of_the_files = matches!(
                    failure.code,
                    AdminCode::InvalidRequest | AdminCode::Conflict
                );
                self.tried = of_the_files.then_some(mark);
                tracing::error!(
                    error = %failure.message,
                    details = ?failure.details,
                    "the policy files changed and are not in force"
                );
            }
        }
    }
}

/// Waits for a change and then for silence.
async fn settle(changed: &Notify) {
    changed.notified().await;
    let quiet = async {
        while tokio::time::timeout(QUIET, changed.notified())
            .await
            .is_ok()
        {}
    };
    let _ = tokio::time::timeout(PATIENCE, quiet).await;
}

fn watcher(dir: &Path, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let (ours, changed) = (dir.to_owned(), Arc::clone(changed));
    let tell = move |event: notify::Result<Event>| match event {
        Ok(event) if !concerns(&event, &ours) => {}
        // Errors, such as an overflow of the queue, may hide a change.
        Ok(_) | Err(_) => changed.notify_one(),
    };
    let made = notify::recommended_watcher(tell).and_then(|mut watcher| {
        if let Some(parent) = dir.parent() {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    made.inspect_err(|error| {
        tracing::warn!(%error, dir = %dir.display(), "the policy directory cannot be watched; it is only polled");
    })
    .ok()
}

/// Whether an event is about the directory, and more than somebody reading it.
fn concerns(event: &Event, dir: &Path) -> bool {
    let reading = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    };
    // Relative paths come as they were given.
    !reading
        && (event.paths.is_empty()
            || event.need_rescan()
            || event
                .paths
                .iter()
                .any(|path| path.starts_with(dir) || path.file_name() == dir.file_name()))
}

/// Tells one state of the directory from another: the files that count, or why they cannot be read.
fn mark(dir: &Path) -> Mark {
    match policy_files::load(dir) {
        Ok(files) => policy_files::hash_of(&files),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            fingerprint(lines.join("\n").as_bytes())
        }
    }
}
