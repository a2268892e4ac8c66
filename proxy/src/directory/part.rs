//! Applying changes of single grants: what that costs does not grow with the number of grants.
//!
//! Invariant: what comes of it is what reading the whole store would have come to, or it is not done. The store tells what was
//! changed since the view in force, or that it cannot; then, and whenever anything does not work out, everything is read.

use std::sync::Arc;

use policy::id::GrantId;

use super::{Applied, CutCount, Directory, Leaf, View, decided_by, now};
use crate::store::{CertificateState, GrantImage, StoreChanges};

impl Directory {
    /// Applies what was changed since the view in force, if that is changes of single grants; `None` when it is not, or does not
    /// work out. To be called under the lock on changes.
    pub(super) async fn refresh_in_part(&self) -> Option<Applied> {
        if self.fenced.load().is_some() {
            return None;
        }
        let before = self.view();
        let since = before.snapshot.revision();
        let changes = self.parts.store.load_changes(since, now(&self.parts));
        let StoreChanges { revision, grants } = changes.await.ok().flatten()?;
        if revision == since {
            return Some(Applied::of(since, CutCount::default()));
        }
        let touched: Vec<GrantId> = grants.iter().map(|image| image.id).collect();
        let mut view = (*before).clone();
        for image in grants {
            self.change(&mut view, image, revision)?;
        }
        Some(self.swap_in_part(&touched, view))
    }

    /// Brings one grant of a view up to date.
    fn change(&self, view: &mut View, image: GrantImage, revision: u64) -> Option<()> {
        let id = image.id;
        let peer = image.grant.as_ref().map(|(_, peer)| decided_by(peer));
        let grant = image.grant.map(|(record, _)| record.grant);
        let key = &self.parts.revision_key;
        let next = view
            .snapshot
            .with_grant(revision, id, grant.zip(peer.as_ref()), key);
        view.snapshot = next.ok().flatten()?;
        if image.certificates.is_empty() {
            view.leaves.remove(&id);
        } else {
            view.leaves
                .insert(id, image.certificates.into_iter().map(Leaf::from).collect());
        }
        Some(())
    }

    /// Puts the view in force and closes the gates of the touched grants, as far as they changed for their holders.
    fn swap_in_part(&self, touched: &[GrantId], view: View) -> Applied {
        let before = self.current.swap(Arc::new(view));
        let after = self.view();
        // The view is in place before any gate closes: an answer that begins in between sees it.
        if touched
            .iter()
            .any(|id| revoked(before.leaves(*id)).ne(revoked(after.leaves(*id))))
        {
            self.put_revoked(&after);
        }
        let (mut cut, mut cuts) = (CutCount::default(), Vec::new());
        for entry in touched.iter().filter_map(|id| before.snapshot.grant(*id)) {
            if let Some(ended) = self.end(entry, &after) {
                cut = cut.plus(ended.count);
                cuts.push(ended);
            }
        }
        self.in_force_now(after.snapshot.revision(), cut, cuts)
    }
}

fn revoked(leaves: &[Leaf]) -> impl Iterator<Item = &[u8; 32]> {
    leaves
        .iter()
        .filter(|leaf| leaf.state == CertificateState::Revoked)
        .map(|leaf| &leaf.fingerprint)
}
