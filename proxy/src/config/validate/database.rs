//! `tier`, `[database]` and `[valkey]`: the servers of the federated tier.
//!
//! Invariant: no part of a URL is in a problem, because any part may be a password by mistake.

use std::time::Duration;

use zeroize::Zeroizing;

use super::super::database::is_schema_name;
use super::super::settings::{self, TierName};
use super::super::{
    Database, Federated, Password, PasswordSource, PostgresTls, PostgresUrl, SslMode, Tier, Valkey,
    ValkeyKind, ValkeyUrl,
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
        const SENTINEL_USER: &str = "valkey.sentinel_user";
        const SENTINEL_PASSWORD: &str = "valkey.sentinel_password_file";
        let Some(text) = &section.url else {
            let message = "is not set, but tier = \"federated\" needs it".to_owned();
            self.add(KEY, message, "set it to redis://host or rediss://host");
            return None;
        };
        let servers = match ValkeyUrl::parse(text) {
            Ok(servers) => servers,
            Err(why) => {
                let remedy = "write it as redis://host, redis-sentinel://host,host/service or redis-cluster://host,host, or these with rediss";
                self.add(KEY, why.to_owned(), remedy);
                return None;
            }
        };
        let local = servers.nodes.iter().all(|node| node.local);
        let only_this_host = !servers.encrypted && !section.allow_unverified;
        if only_this_host && !local {
            let message = "reaches another host in the clear".to_owned();
            let remedy = "use rediss, or set valkey.allow_unverified = true if the network itself is trusted";
            self.add(KEY, message, remedy);
        }
        let roots = section
            .root_file
            .as_deref()
            .map(|file| self.path("valkey.root_file", file));
        if roots.is_some() && !servers.encrypted {
            let message = "is of no use without TLS".to_owned();
            let remedy = "write valkey.url with rediss, or leave it out";
            self.add("valkey.root_file", message, remedy);
        }
        let sentinel_password_file = section
            .sentinel_password_file
            .as_deref()
            .map(|file| self.path(SENTINEL_PASSWORD, file));
        let watched = matches!(servers.kind, ValkeyKind::Sentinel { .. });
        for (key, is_set) in [
            (SENTINEL_USER, section.sentinel_user.is_some()),
            (SENTINEL_PASSWORD, sentinel_password_file.is_some()),
        ] {
            if is_set && !watched {
                let message = "is of no use without sentinels".to_owned();
                let remedy =
                    "write valkey.url as redis-sentinel://host,host/service, or leave it out";
                self.add(key, message, remedy);
            }
        }
        if section.sentinel_user.is_some() && sentinel_password_file.is_none() {
            let message = "has no password".to_owned();
            let remedy = "set valkey.sentinel_password_file, or leave it out";
            self.add(SENTINEL_USER, message, remedy);
        }
        Some(Valkey {
            servers,
            sentinel_user: section.sentinel_user.clone(),
            sentinel_password_file,
            roots,
            only_this_host,
            timeout: Duration::from_millis(section.timeout_ms),
        })
    }
}
