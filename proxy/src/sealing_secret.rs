//! Reading the sealing secret from where the settings say it is, and the one that is to follow it.
//!
//! Invariant: the secret that follows lies beside the present one ([`SealSource::next`]), so that a process that is started
//! again in the midst of a change finds both. What they seal is elsewhere.

use std::path::PathBuf;

use certs::seal::{KeyId, SecretError};
use certs::{Sealer, SealingSecret};

use crate::config::SealSource;

/// The variable in which the service manager says where its credentials are (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The file of a credential, where the service manager has given any.
#[must_use]
pub fn credential_file(name: &str) -> Option<PathBuf> {
    std::env::var_os(CREDENTIALS).map(|dir| PathBuf::from(dir).join(name))
}

/// Reads the secret.
///
/// # Errors
/// Why it cannot be read, in words for the operator.
pub fn read(source: &SealSource) -> Result<SealingSecret, String> {
    let read = match source {
        SealSource::File(path) | SealSource::Generated(path) => SealingSecret::from_file(path),
        SealSource::Environment(name) => SealingSecret::from_env(name),
        SealSource::Credential(name) => {
            let path = credential_file(name).ok_or_else(|| {
                format!(
                    "the sealing secret is to be the credential {name}, but {CREDENTIALS} is not set; add `LoadCredential={name}:FILE` to the unit, or set seal.secret_file"
                )
            })?;
            SealingSecret::from_file(&path)
        }
    };
    read.map_err(|error| error.to_string())
}

/// Reads the secret that is to follow; `None` when there is none in its place.
///
/// # Errors
/// As [`read`], when there is one.
pub fn read_next(source: &SealSource) -> Result<Option<SealingSecret>, String> {
    let next = source.next();
    let read = match &next {
        SealSource::File(path) | SealSource::Generated(path) => SealingSecret::from_file(path),
        SealSource::Environment(name) => SealingSecret::from_env(name),
        SealSource::Credential(name) => match credential_file(name) {
            Some(path) => SealingSecret::from_file(&path),
            None => return Ok(None),
        },
    };
    match read {
        Ok(secret) => Ok(Some(secret)),
        Err(SecretError::NoVariable { .. }) => Ok(None),
        Err(SecretError::Unreadable { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The secret of a name, from where the next one lies or, where that has been put in its place already, from the settings' own.
///
/// # Errors
/// Where it was looked for, in words for the operator.
pub fn named(source: &SealSource, key_id: &KeyId) -> Result<Sealer, String> {
    let sealer = |secret| Sealer::new(secret).map_err(|error| error.to_string());
    if let Some(next) = read_next(source)?.map(sealer).transpose()?
        && next.key_id() == *key_id
    {
        return Ok(next);
    }
    let present = sealer(read(source)?)?;
    if present.key_id() == *key_id {
        return Ok(present);
    }
    Err(format!(
        "neither {} nor {source} holds the secret named {}",
        source.next(),
        hex::encode(key_id)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_secret_that_follows_lies_beside_the_present_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let source = SealSource::File(path.clone());
        assert!(read(&source).unwrap_err().contains("could not be read"));
        write(&path, &"a".repeat(32), 0o600);
        assert!(read(&source).is_ok());
        assert!(read_next(&source).unwrap().is_none());
        let next = dir.path().join("secret.next");
        write(&next, &"b".repeat(32), 0o644);
        assert!(read_next(&source).unwrap_err().contains("chmod 600"));
        write(&next, &"b".repeat(32), 0o600);
        assert!(read_next(&source).unwrap().is_some());
    }

    #[test]
    fn names_follow_names() {
        let environment = SealSource::Environment("SECRET".to_owned());
        let next = SealSource::Environment("SECRET_NEXT".to_owned());
        assert_eq!(environment.next(), next);
        let credential = SealSource::Credential("seal".to_owned());
        let next = SealSource::Credential("seal.next".to_owned());
        assert_eq!(credential.next(), next);
        assert!(read_next(&environment).unwrap().is_none());
    }
}
