//! The `[seal]` section: one source of the sealing secret.

use std::path::Path;

use super::super::{SealSource, settings};
use super::Check;

impl Check<'_> {
    pub(super) fn seal(&mut self, section: settings::Seal, data_dir: &Path) -> Option<SealSource> {
        let settings::Seal {
            secret_file,
            secret_env,
            secret_credential,
        } = section;
        let named = [
            ("seal.secret_env", secret_env.is_some()),
            ("seal.secret_credential", secret_credential.is_some()),
        ];
        let set: Vec<&str> = std::iter::once(("seal.secret_file", secret_file.is_some()))
            .chain(named)
            .filter_map(|(key, is_set)| is_set.then_some(key))
            .collect();
        if let [first, .., last] = set.as_slice() {
            let message = format!("is set together with {first}");
            self.add(last, message, "keep one of them");
            return None;
        }
        if let Some(file) = secret_file {
            return Some(SealSource::File(self.path("seal.secret_file", &file)));
        }
        if let Some(name) = secret_env {
            if !name.is_empty() && !name.contains(['=', '\0']) {
                return Some(SealSource::Environment(name));
            }
            let message = "is not the name of an environment variable".to_owned();
            let remedy = "name the variable, not its value";
            self.add("seal.secret_env", message, remedy);
            return None;
        }
        if let Some(name) = secret_credential {
            if !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']) {
                return Some(SealSource::Credential(name));
            }
            let message = "is not the name of a credential".to_owned();
            let remedy = "give the name that `LoadCredential=` gives it";
            self.add("seal.secret_credential", message, remedy);
            return None;
        }
        Some(SealSource::Generated(data_dir.join("sealing.key")))
    }
}
