//! Revocation lists in `status` and `doctor`, and what acts that revoke wait for.

use certs::identity::issued_by;
use policy::time::UnixMillis;
use serde::Serialize;

use super::check::CheckView;
use super::{AdminFailure, Control};
use crate::revocation::{ListFailure, PlaceView};
use crate::store::CertificateState;

/// Revocation lists, ours and others'.
#[derive(Debug, Serialize)]
pub struct RevocationView {
    /// Whether peers are refused whose authority has no list here.
    pub required: bool,
    /// Our own list; `None` when another authority signs for peers.
    pub published: Option<PublishedView>,
    /// Why it is older than it should be.
    pub publish_failure: Option<ListFailure>,
    /// Where lists of others are read.
    pub places: Vec<PlaceView>,
    /// Revocations that the authority for peers has yet to be told of; `None` when that is our own.
    pub untold: Option<u64>,
    /// Why the oldest of them could not be told.
    pub untold_failure: Option<String>,
}

/// Our own list.
#[derive(Debug, Serialize)]
pub struct PublishedView {
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub this_update: UnixMillis,
    /// Until when it is good.
    pub next_update: UnixMillis,
    /// How many certificates it names.
    pub entries: usize,
}

impl Control {
    /// How revocation lists stand.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn revocation_view(&self) -> Result<RevocationView, AdminFailure> {
        let millis = |seconds: i64| UnixMillis(seconds.saturating_mul(1_000));
        let published = self.published.as_ref();
        let (untold, untold_failure) = if self.step.is_some() {
            let oldest = self.store.untold_revocations(self.now(), 1).await?.pop();
            let count = self.store.count_untold(self.now()).await?;
            (Some(count), oldest.and_then(|oldest| oldest.failure))
        } else {
            (None, None)
        };
        Ok(RevocationView {
            required: self.lists.terms().required,
            published: published
                .and_then(|list| list.shown())
                .map(|shown| PublishedView {
                    number: shown.number,
                    this_update: millis(shown.this_update),
                    next_update: millis(shown.next_update),
                    entries: shown.entries,
                }),
            publish_failure: published.and_then(|list| list.failure()),
            places: self.lists.view(),
            untold,
            untold_failure,
        })
    }

    /// Has our own list name what was just revoked. A list that cannot be made does not hold the act up.
    pub(super) async fn publish_revocations(&self) {
        if let Some(list) = &self.published {
            list.follow().await;
        }
    }

    /// What is to be said about revocation lists.
    pub(super) async fn check_revocation(&self) -> Result<Vec<CheckView>, AdminFailure> {
        let view = self.revocation_view().await?;
        let mut checks = Vec::new();
        if let Some(failure) = &view.publish_failure {
            checks.push(CheckView::fail(
                "revocation list",
                format!("could not be made anew since {}: {}", failure.since, failure.message),
                "see to the database; revocations hold here all the same, but others do not learn of them",
            ));
        } else if let Some(list) = &view.published {
            let found = format!(
                "number {}, names {} certificate(s), good until {}",
                list.number, list.entries, list.next_update
            );
            checks.push(CheckView::ok("revocation list", found));
        }
        checks.extend(
            view.places
                .iter()
                .map(|place| check_place(place, view.required)),
        );
        if self.step.is_none() {
            checks.extend(self.check_distribution_points().await?);
        }
        if let Some(count) = view.untold.filter(|count| *count > 0) {
            let why = view.untold_failure.as_deref().unwrap_or("being told");
            checks.push(CheckView::warn(
                "authority's revocations",
                format!("{count} revocation(s) have yet to be told to the step-ca: {why}"),
                "start the step-ca or correct [ca]; it is tried again by itself, and the certificates open nothing here meanwhile",
            ));
        }
        Ok(checks)
    }

    /// Certificates from before lists were published do not say where.
    async fn check_distribution_points(&self) -> Result<Option<CheckView>, AdminFailure> {
        let now = self.now();
        let view = self.directory.view();
        let own = certs::TrustAnchors::new(0, self.ca.anchors()).ok();
        let own: Vec<_> = own
            .iter()
            .flat_map(certs::TrustAnchors::roots)
            .filter_map(|root| issued_by(root))
            .map(|(issuer, _)| issuer)
            .collect();
        let mut silent = 0_usize;
        for grant in view.snapshot.grants().map(|entry| entry.grant.id) {
            let active = view
                .leaves(grant)
                .iter()
                .any(|leaf| leaf.state_at(now) == CertificateState::Active && leaf.not_after > now);
            if !active {
                continue;
            }
            let records = self.store.list_certificates(grant).await?;
            silent += records
                .iter()
                .filter(|record| {
                    record.entry.state_at(now) == CertificateState::Active
                        && record.entry.not_after > now
                        && issued_by(&record.der).is_some_and(|(issuer, _)| own.contains(&issuer))
                        && !certs::crl::says_where(&record.der)
                })
                .count();
        }
        Ok((silent > 0).then(|| {
            CheckView::warn(
                "distribution points",
                format!("{silent} client certificate(s) do not say where revocations are published"),
                "nothing need be done: the next renewal of each says it; this side does not depend on it",
            )
        }))
    }
}

fn check_place(place: &PlaceView, required: bool) -> CheckView {
    let name = format!("revocation lists of {}", place.place);
    let why = place
        .failure
        .as_deref()
        .unwrap_or("it has not been published again in time");
    let repair = "publish a new list there, or correct [revocation]";
    match place.state {
        "fresh" if place.failure.is_none() => {
            let entries: usize = place.lists.iter().map(|list| list.entries).sum();
            let mut found = format!(
                "{} list(s) naming {entries} certificate(s)",
                place.lists.len()
            );
            if place.foreign > 0 {
                found.push_str(&format!(
                    "; {} of other issuers are passed over",
                    place.foreign
                ));
            }
            CheckView::ok(&name, found)
        }
        "fresh" => CheckView::warn(
            &name,
            format!("the last good ones are in force: {why}"),
            repair,
        ),
        "late" => CheckView::warn(&name, format!("late, still counting: {why}"), repair),
        "too_old" => CheckView::fail(
            &name,
            format!("too old, so peers of that issuer are refused: {why}"),
            repair,
        ),
        _ if required => {
            CheckView::fail(&name, format!("none, so peers are refused: {why}"), repair)
        }
        _ => CheckView::warn(
            &name,
            format!("none: {why}"),
            "what is revoked there with other tools is not noticed here; a step-ca 0.23 or later publishes one when `crl.enabled` is set, and `revocation.required` refuses peers without it",
        ),
    }
}
