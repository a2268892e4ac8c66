//! The checks of `doctor` that only the running process can make.
//!
//! Invariant: every check that is not ok says what to do. What can be checked without the process is in
//! `cli/doctor.rs`.

use std::time::Duration;

use certs::rotation::{Jitter, Life};
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::status::tier;
use super::{AdminFailure, Control, days_left};
use crate::config::{SealSource, Tier};
use crate::hardening::Confinement;
use crate::store::{CertificateState, CredentialState, OutboundCredential};
use crate::tier::Probe;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// As it should be.
    Ok,
    /// Works, but somebody should look.
    Warn,
    /// Does not work.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// What was checked.
    pub name: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// What was found.
    pub found: String,
    /// What to do, unless ok.
    pub remedy: Option<String>,
}

impl CheckView {
    /// A check that is as it should be.
    #[must_use]
    pub fn ok(name: &str, found: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            outcome: CheckOutcome::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    /// A check that somebody should look at.
    #[must_use]
    pub fn warn(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            outcome: CheckOutcome::Warn,
            remedy: Some(remedy.into()),
            ..Self::ok(name, found)
        }
    }

    /// A check that failed.
    #[must_use]
    pub fn fail(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            outcome: CheckOutcome::Fail,
            remedy: Some(remedy.into()),
            ..Self::ok(name, found)
        }
    }
}

impl From<Probe> for CheckView {
    fn from(probe: Probe) -> Self {
        match probe.found {
            Ok(found) => Self::ok(probe.name, found),
            Err(why) if probe.needed => Self::fail(probe.name, why, probe.remedy),
            Err(why) => Self::warn(probe.name, why, probe.remedy),
        }
    }
}

/// Days before the end of a certificate from which on it is worth a look.
const SERVER_WARN_DAYS: i64 = 29;
const FILES_WARN_DAYS: i64 = 14;
/// Round trips between two sites, with the gateway's answer in them, take longer than a lease below this allows.
const LEASE_WARN: Duration = Duration::from_millis(500);

impl Control {
    /// The checks, in a fixed order.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    pub async fn checks(&self) -> Result<Vec<CheckView>, AdminFailure> {
        let now = self.now();
        let (_, note) = tier(&self.config.tier);
        let mut checks = vec![match &self.config.tier {
            Tier::Embedded => CheckView::warn(
                "tier",
                note,
                "nothing to do for one site; docs/postgresql.md says how to move to the federated tier",
            ),
            Tier::Federated(_) => CheckView::ok("tier", note),
        }];
        if let Tier::Federated(servers) = &self.config.tier {
            checks.extend(
                crate::tier::probe(servers)
                    .await
                    .into_iter()
                    .map(Into::into),
            );
        }
        checks.push(match self.store.health().await {
            Ok(()) => CheckView::ok("store", "answers and takes writes"),
            Err(error) => CheckView::fail(
                "store",
                error.to_string(),
                "check that the database runs and has room",
            ),
        });
        checks.push(self.check_audit());
        checks.push(self.check_replicas().await?);
        checks.push(self.check_archive().await?);
        checks.push(self.check_policy());
        checks.push(self.check_seal().await?);
        checks.push(self.check_hardening());
        checks.extend(self.check_authority().await);
        checks.extend(self.check_rotation().await?);
        checks.extend(self.check_revocation().await?);
        checks.extend(self.check_lease());
        checks.extend(self.check_server_certificate(now));
        checks.extend(self.check_certificates(now).await?);
        checks.extend(self.check_witness());
        checks.push(self.check_own_gateway().await);
        Ok(checks)
    }

    async fn check_own_gateway(&self) -> CheckView {
        match self.probe_gateway().await {
            None => CheckView::ok("gateway", format!("{} answers", self.config.gateway.url)),
            Some(why) if self.config.roles.serve => CheckView::fail(
                "gateway",
                why,
                "start it, or correct gateway.url; then `gateway check`",
            ),
            Some(why) => CheckView::warn(
                "gateway",
                why,
                "nothing to do if only peers are asked; else start it, or correct gateway.url",
            ),
        }
    }

    fn check_server_certificate(&self, now: UnixMillis) -> Option<CheckView> {
        let server = self.server_certificate.as_ref()?;
        let name = "server certificate";
        if let Some(failure) = server.failure() {
            return Some(CheckView::fail(
                name,
                format!("the last good one is in force: {}", failure.message),
                "repair it; it is looked at again every 10 s, and with `policy reload`",
            ));
        }
        let in_force = server.current();
        let in_force = in_force.credential();
        let millis = |seconds: i64| UnixMillis(seconds.saturating_mul(1_000));
        let end = millis(in_force.not_after());
        if server.source() == "step-ca" && !is_overdue(millis(in_force.not_before()), end, now) {
            // They may live for hours: that the end is near says nothing.
            return Some(CheckView::ok(name, format!("of the step-ca, until {end}")));
        }
        let remedy = match server.source() {
            "files" => {
                "put a newer certificate and key in place of the files; they are read by themselves"
            }
            _ => {
                "look at the log: the authority issues another one when a third of its life is left"
            }
        };
        let warn = match server.source() {
            "files" => FILES_WARN_DAYS,
            _ => SERVER_WARN_DAYS,
        };
        Some(expiry(name, "", end, now, warn, remedy))
    }

    fn check_audit(&self) -> CheckView {
        if let Some(why) = self.audit.outage() {
            return CheckView::fail(
                "audit",
                why,
                "make room on the disk and see to the database; the journal empties by itself",
            );
        }
        match self.audit.trouble() {
            Some(why) => CheckView::warn(
                "audit",
                why,
                "see to the database before the journal is full; `audit.journal_bytes` makes it larger",
            ),
            None => CheckView::ok(
                "audit",
                format!(
                    "{} record(s) wait for the database",
                    self.audit.journal.depth()
                ),
            ),
        }
    }

    /// A lease that many peers cannot use.
    fn check_lease(&self) -> Option<CheckView> {
        let lease = self.config.lease.duration;
        (self.config.roles.serve && lease < LEASE_WARN).then(|| {
            let millis = lease.as_millis();
            CheckView::warn(
                "leases",
                format!("answers are good for {millis} ms: a peer whose round trip takes three quarters of that gets `lease_lost`"),
                "raise lease.duration_ms well above the slowest round trip; a revocation waits at most that long",
            )
        })
    }

    /// Peers whose record of our questions does not hold together.
    fn check_witness(&self) -> Vec<CheckView> {
        let Some(outbound) = &self.outbound else {
            return Vec::new();
        };
        let table = outbound.routes();
        let mut found: Vec<CheckView> = table
            .routes()
            .filter_map(|route| {
                let (text, at) = outbound.witness_of(route.grant).alarm?;
                Some(CheckView::fail(
                    &format!("record of {}", route.name),
                    format!("{text} ({at})"),
                    "ask its operator for `audit export --grant`, run `audit reconcile` with it, and settle between you what happened",
                ))
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    async fn check_archive(&self) -> Result<CheckView, AdminFailure> {
        if let Some(why) = self.audit.archive.failing() {
            return Ok(CheckView::warn(
                "archive",
                format!("old audit rows could not be moved: {why}"),
                "see to `audit.archive_dir` and the database; it is tried again within the hour, `audit archive` tries at once",
            ));
        }
        let files = self.store.cold_files().await?;
        for file in &files {
            let path = self.archiver.shelf().path(file.number);
            let there = tokio::fs::metadata(&path).await;
            if there.map_or(true, |found| found.len() != file.bytes) {
                return Ok(CheckView::fail(
                    "archive",
                    format!("`{}` is not there as it was written", path.display()),
                    "put a copy of it back; `audit verify` reads all of them",
                ));
            }
        }
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        Ok(CheckView::ok(
            "archive",
            format!("{rows} row(s) in {} file(s)", files.len()),
        ))
    }

    fn check_policy(&self) -> CheckView {
        if let Some(why) = self.directory.fenced() {
            return CheckView::fail(
                "policy",
                format!("nothing is served: {why}"),
                "repair it and run `policy reload`",
            );
        }
        if let Some(failure) = self.policy_failure.lock().as_ref() {
            let found = format!(
                "the last reload ({}) failed; an older set is in force",
                failure.at
            );
            return CheckView::fail(
                "policy",
                found,
                "run `policy check`, correct the files, run `policy reload`",
            );
        }
        let view = self.directory.view();
        if view.policy.files.is_empty() && !self.config.roles.serve {
            return CheckView::ok("policy", "no files, and none needed: nobody is answered");
        }
        if view.policy.files.is_empty() {
            return CheckView::warn(
                "policy",
                "no files: everything is denied",
                "write a [ceiling] and run `policy reload`",
            );
        }
        CheckView::ok(
            "policy",
            format!("{} file(s) in force", view.policy.files.len()),
        )
    }

    fn check_hardening(&self) -> CheckView {
        let name = "hardening";
        if !self.hardening.memory_protected {
            let remedy = "run it as a process of its own with `serve`";
            return CheckView::warn(name, "core dumps and tracing are not off", remedy);
        }
        let confined =
            "core dumps and tracing are off, the process is confined to the files it needs";
        match self.hardening.files {
            Confinement::Full => CheckView::ok(name, confined),
            Confinement::Partial => CheckView::warn(
                name,
                format!("{confined} as far as this kernel can"),
                "nothing need be done; a newer kernel (6.10 or later) enforces all of it",
            ),
            Confinement::Unavailable => CheckView::warn(
                name,
                "core dumps and tracing are off, but this kernel has no Landlock",
                "use a kernel with Landlock, or confine the service by other means (systemd's ProtectSystem=strict)",
            ),
            Confinement::Off => CheckView::warn(
                name,
                "core dumps and tracing are off, but the settings leave the file system open",
                "set hardening.landlock to \"best_effort\" or \"required\"",
            ),
        }
    }

    async fn check_seal(&self) -> Result<CheckView, AdminFailure> {
        let name = "sealing secret";
        let state = self.store.sealing().await?;
        if let Some(next) = state.and_then(|state| state.next) {
            let to = hex::encode(next.key_id);
            return Ok(CheckView::warn(
                name,
                format!(
                    "is being changed to the one named {to} since {}",
                    next.begun_at.rfc3339()
                ),
                "`keys reseal status` shows what is left; end it with `keys reseal finish`",
            ));
        }
        let source = &self.config.seal;
        Ok(match source {
            SealSource::Generated(path) => CheckView::warn(
                name,
                format!("generated, in {} beside what it seals", path.display()),
                "keep a copy apart from the data directory's backup, or set seal.secret_file before first use",
            ),
            _ => CheckView::ok(name, format!("from {source}")),
        })
    }

    async fn check_certificates(&self, now: UnixMillis) -> Result<Vec<CheckView>, AdminFailure> {
        let mut checks = Vec::new();
        let image = self.store.load(now).await?;
        let grants = image.grants_by_id();
        for leaf in image
            .certificates
            .iter()
            .filter(|leaf| leaf.state == CertificateState::Active && leaf.retires_at.is_none())
        {
            let grant = grants.get(&leaf.grant);
            if grant.is_some_and(|record| record.grant.status_at(now).is_final()) {
                continue;
            }
            // A peer's lapsed certificate is the peer's failure, not this process's.
            if is_overdue(leaf.not_before, leaf.not_after, now) {
                let found = format!(
                    "of grant {} ends at {} and has not been renewed",
                    leaf.grant, leaf.not_after
                );
                let remedy = format!(
                    "see whether the peer is up; once it has ended, run `grant token {} --replace` and hand the URL to the peer",
                    leaf.grant
                );
                checks.push(CheckView::warn("client certificate", found, remedy));
            }
        }
        for credential in self.store.list_outbound_credentials().await? {
            if credential.state != CredentialState::Active {
                continue;
            }
            let name = image
                .peers
                .iter()
                .find(|peer| peer.id == credential.peer)
                .map(|peer| peer.name.to_string());
            checks.extend(check_credential(
                &credential,
                &name.unwrap_or_default(),
                now,
            ));
        }
        if checks.is_empty() {
            checks.push(CheckView::ok("certificates", "none is near its end"));
        }
        Ok(checks)
    }
}

/// A credential that we ask with: whether it has ended, or is due and not renewed.
fn check_credential(
    credential: &OutboundCredential,
    peer: &str,
    now: UnixMillis,
) -> Option<CheckView> {
    let (name, end) = ("credential", credential.not_after);
    let theirs = now.saturating_add(credential.skew_ms);
    if theirs > end {
        let remedy = "ask the peer's operator for `grant token --replace` and run `peer add` again";
        return Some(CheckView::fail(
            name,
            format!("towards peer {peer} expired at {end}"),
            remedy,
        ));
    }
    let tries = &credential.tries;
    let begins = credential.began_at.unwrap_or(credential.created_at);
    let why = match &tries.failure {
        Some(why) if tries.failures > 0 => why.clone(),
        _ if is_overdue(begins, end, theirs) => "it was due long ago".to_owned(),
        _ => return None,
    };
    let found = format!(
        "towards peer {peer} ends at {end} and could not be renewed {} time(s): {why}",
        tries.failures
    );
    let remedy = "it is tried again until then; `cert renew` tries at once";
    Some(CheckView::warn(name, found, remedy))
}

/// Whether half of the time that is meant for renewing a certificate has passed.
fn is_overdue(begins: UnixMillis, ends: UnixMillis, now: UnixMillis) -> bool {
    let life = Life {
        begins: begins.0,
        ends: ends.0,
    };
    let due = life.due(Jitter::NONE);
    now.0 > due.saturating_add(ends.0.saturating_sub(due) / 2)
}

fn expiry(
    name: &str,
    of: &str,
    end: UnixMillis,
    now: UnixMillis,
    warn_days: i64,
    remedy: &str,
) -> CheckView {
    let days = days_left(end, now);
    if end <= now {
        CheckView::fail(name, format!("expired{of} at {end}"), remedy)
    } else if days < warn_days {
        CheckView::warn(
            name,
            format!("expires{of} at {end}, in {days} day(s)"),
            remedy,
        )
    } else {
        CheckView::ok(name, format!("good{of} for {days} days"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_warns_before_it_fails() {
        const DAY: i64 = 86_400_000;
        let at = |days: i64| {
            expiry(
                "c",
                "",
                UnixMillis(100 * DAY),
                UnixMillis(days * DAY),
                14,
                "do",
            )
            .outcome
        };
        assert_eq!(at(0), CheckOutcome::Ok);
        assert_eq!(at(86), CheckOutcome::Ok);
        assert_eq!(at(87), CheckOutcome::Warn);
        assert_eq!(at(100), CheckOutcome::Fail);
    }
}
