//! The files a sidecar needs while it runs, from its settings.
//!
//! Invariant: written are only the data directory, those of the audit log and its archive, the directories of sockets and the key set of assertions; read are
//! besides these the policy, the secrets that the settings name, and what resolving names takes. Nothing is executed.

use std::path::{Path, PathBuf};

use crate::config::{Ca, Config, GatewayAuth, PasswordSource, PostgresTls, SealSource, Tier};
use crate::hardening::Needs;
use crate::sealing_secret::credential_file;

/// What resolving host names and loading its modules reads, and what the runtime asks of the kernel.
const SYSTEM: [&str; 9] = [
    "/etc",
    "/usr/lib",
    "/usr/share/zoneinfo",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/proc",
    "/sys/fs/cgroup",
    "/dev/urandom",
];

/// What a sidecar with these settings needs.
pub(super) fn needs(config: &Config) -> Needs {
    let mut needs = Needs {
        read: SYSTEM.map(PathBuf::from).to_vec(),
        // Where output that nobody wants goes.
        write: vec![
            config.data_dir.clone(),
            config.audit.dir.clone(),
            config.audit.archive_dir.clone(),
            PathBuf::from("/dev/null"),
        ],
    };
    needs.read.push(config.policy.dir.clone());
    // A directory that is replaced by another is let in through its parent.
    needs.read.extend(directory(&config.policy.dir));
    // The secret that is to follow lies beside the present one.
    for source in [config.seal.clone(), config.seal.next()] {
        needs.read.extend(match source {
            SealSource::File(path) | SealSource::Generated(path) => Some(path),
            SealSource::Credential(name) => credential_file(&name),
            SealSource::Environment(_) => None,
        });
    }
    if let Tier::Federated(servers) = &config.tier {
        // The roots are read again with each new connection.
        if let PostgresTls::Verified { roots: Some(roots) } = &servers.database.tls {
            needs.read.push(roots.clone());
        }
        needs.read.extend(match &servers.database.password {
            PasswordSource::File(path) => Some(path.clone()),
            PasswordSource::Credential(name) => credential_file(name),
            PasswordSource::None | PasswordSource::Url(_) => None,
        });
        // `doctor` reads them again.
        let valkey = &servers.valkey;
        let named = [&valkey.roots, &valkey.sentinel_password_file];
        needs.read.extend(named.into_iter().flatten().cloned());
    }
    if let GatewayAuth::ServiceToken {
        token_file,
        jwks_file,
        ..
    } = &config.gateway.auth
    {
        needs.read.push(token_file.clone());
        needs.write.extend(directory(jwks_file));
    }
    if let Ca::Step {
        root_file,
        key_file,
        password_file,
        ..
    } = &config.ca
    {
        let files = [Some(root_file), Some(key_file), password_file.as_ref()];
        needs.read.extend(files.into_iter().flatten().cloned());
    }
    if let Some(step) = &config.tls.step {
        needs.read.push(step.key_file.clone());
        needs.read.extend(step.password_file.clone());
    }
    let lists = &config.revocation;
    for file in &lists.files {
        // Directories, since files are replaced in them.
        needs.read.push(file.clone());
        needs.read.extend(directory(file));
    }
    let named = [&lists.root_file, &lists.issuers_file];
    needs.read.extend(named.into_iter().flatten().cloned());
    if let Some(otlp) = &config.otlp {
        let named = [&otlp.root_file, &otlp.authorization_file];
        needs.read.extend(named.into_iter().flatten().cloned());
    }
    if let Some(files) = &config.tls.files {
        // Directories, since files are replaced in them.
        let named = [
            Some(&files.certificate),
            Some(&files.key),
            files.roots.as_ref(),
            files.root.as_ref(),
        ];
        for file in named.into_iter().flatten() {
            needs.read.extend(directory(file));
        }
    }
    for socket in [&config.admin.socket, &config.session.socket] {
        needs.write.extend(directory(socket));
    }
    needs
}

/// The directory in which a file is made and replaced.
fn directory(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        parent.to_owned()
    })
}
