//! `tier`, `[database]` and `[valkey]`: the servers of the federated tier.
//!
//! Invariant: no part of a URL is in a problem, because any part may be a password by mistake.

use std::time::Duration;

use zeroize::Zeroizing;

use super::super::database::{is_loopback, is_schema_name};
use super::super::settings::{self, TierName};
use super::super::{
    Database, Federated, Password, PasswordSource, PostgresTls, PostgresUrl, SslMode, Tier, Valkey,
};
use super::Check;

impl Check<'_> {
    pub(super) fn tier(
        &mut self,
        tier: TierName,
        database: settings::Database,
        valkey: &settings::Valkey,
    ) -> Option<Tier> {
        if tier == TierName::Embedded {
            let set: Vec<String> = self
                .sources
                .keys()
                .filter(|key| key.starts_with("database.") || key.starts_with("valkey."))
                .cloned()
                .collect();
            for key in set {
                let message = "is of no use with tier = \"embedded\"".to_owned();
                self.add(&key, message, "set tier = \"federated\", or leave it out");
            }
            return Some(Tier::Embedded);
        }
        let (database, valkey) = (self.database(database), self.valkey(valkey));
        Some(Tier::Federated(Box::new(Federated {
            database: database?,
            valkey: valkey?,
        })))
    }

    fn database(&mut self, section: settings::Database) -> Option<Database> {
        const KEY: &str = "database.url";
        let Some(text) = section.url.map(Zeroizing::new) else {
            let message = "is not set, but tier = \"federated\" needs it".to_owned();
            self.add(KEY, message, "set it to postgres://user@host/database");
            return None;
        };
        let url = match PostgresUrl::parse(&text) {
            Ok(url) => url,
            Err(why) => {
                self.add(KEY, why, "write it as postgres://user@host/database");
                return None;
            }
        };
        if !is_schema_name(&section.schema) {
            let message = "is not the name of a schema of our own".to_owned();
            let remedy =
                "use at most 40 lower case letters, digits and underscores, a letter first";
            self.add("database.schema", message, remedy);
        }
        let roots = section
            .root_file
            .map(|file| self.path("database.root_file", &file));
        let local = url.host.is_local();
        let mode = url.mode.unwrap_or(if local {
            SslMode::Disable
        } else {
            SslMode::VerifyFull
        });
        if roots.is_some() && mode != SslMode::VerifyFull {
            let message = "is of no use without sslmode=verify-full".to_owned();
            let remedy = "add ?sslmode=verify-full to database.url, or leave it out";
            self.add("database.root_file", message, remedy);
        }
        if mode != SslMode::VerifyFull && !local && !section.allow_unverified {
            let message = "reaches another host without a verified connection".to_owned();
            let remedy = "use sslmode=verify-full and database.root_file, or set database.allow_unverified = true if the network itself is trusted";
            self.add(KEY, message, remedy);
        }
        let tls = match mode {
            SslMode::Disable => PostgresTls::Off,
            SslMode::Require => PostgresTls::Unverified,
            SslMode::VerifyFull => PostgresTls::Verified { roots },
        };
        let password = self.password(
            url.password,
            section.password_file.as_deref(),
            section.password_credential,
        )?;
        Some(Database {
            host: url.host,
            port: url.port,
            user: url.user,
            name: url.database,
            schema: section.schema,
            password,
            tls,
            max_connections: section.max_connections,
            acquire_timeout: Duration::from_millis(section.acquire_timeout_ms),
            statement_timeout: Duration::from_millis(section.statement_timeout_ms),
            lock_timeout: Duration::from_millis(section.lock_timeout_ms),
        })
    }

    fn password(
        &mut self,
        in_url: Option<Password>,
        file: Option<&str>,
        credential: Option<String>,
    ) -> Option<PasswordSource> {
        const FILE: &str = "database.password_file";
        const CREDENTIAL: &str = "database.password_credential";
        let keys = [
            ("database.url", in_url.is_some()),
            (FILE, file.is_some()),
            (CREDENTIAL, credential.is_some()),
        ];
        let set: Vec<&str> = keys
            .into_iter()
            .filter_map(|(key, is_set)| is_set.then_some(key))
            .collect();
        if let [first, .., last] = set.as_slice() {
            let message = format!("holds a password, and so does {first}");
            self.add(last, message, "keep one of them");
            return None;
        }
        if let Some(file) = file {
            return Some(PasswordSource::File(self.path(FILE, file)));
        }
        if let Some(name) = credential {
            if !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']) {
                return Some(PasswordSource::Credential(name));
            }
            let message = "is not the name of a credential".to_owned();
            let remedy = "give the name that `LoadCredential=` gives it";
            self.add(CREDENTIAL, message, remedy);
            return None;
        }
        Some(in_url.map_or(PasswordSource::None, PasswordSource::Url))
    }

    fn valkey(&mut self, section: &settings::Valkey) -> Option<Valkey> {
        const KEY: &str = "valkey.url";
        let Some(text) = &section.url else {
            let message = "is not set, but tier = \"federated\" needs it".to_owned();
            self.add(KEY, message, "set it to redis://host or rediss://host");
            return None;
        };
        let (encrypted, rest) = match (
            text.strip_prefix("redis://"),
            text.strip_prefix("rediss://"),
        ) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => {
                let message = "begins with neither redis:// nor rediss://".to_owned();
                self.add(KEY, message, "write it as redis://host or rediss://host");
                return None;
            }
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let address = authority
            .rsplit_once('@')
            .map_or(authority, |(_, address)| address);
        let host = match address.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => address.split(':').next().unwrap_or_default(),
        };
        if host.is_empty() || rest.contains('#') {
            let message = "names no host, or has a #".to_owned();
            self.add(KEY, message, "write it as redis://host or rediss://host");
            return None;
        }
        if !encrypted && !is_loopback(host) && !section.allow_unverified {
            let message = "reaches another host in the clear".to_owned();
            let remedy = "use rediss://, or set valkey.allow_unverified = true if the network itself is trusted";
            self.add(KEY, message, remedy);
        }
        Some(Valkey {
            url: Password::new(Zeroizing::new(text.clone())),
            place: address.to_owned(),
            timeout: Duration::from_millis(section.timeout_ms),
        })
    }
}
