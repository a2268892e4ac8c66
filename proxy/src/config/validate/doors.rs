//! The session door's keys, and listeners that must not meet.
//!
//! Invariant: what has no TLS listens on loopback only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use policy::id::UserId;

use super::Check;
use crate::config::{Session, settings};

impl Check<'_> {
    pub(super) fn session(
        &mut self,
        section: settings::Session,
        data_dir: &Path,
    ) -> Option<Session> {
        let socket = self.socket("session.socket", section.socket, data_dir, "session.sock");
        let listen = match section.listen.as_deref() {
            None => Some(None),
            Some(text) => self.address("session.listen", text).map(Some),
        };
        if let Some(Some(address)) = listen
            && !address.ip().is_loopback()
        {
            let message = format!("{address} is not a loopback address");
            self.add(
                "session.listen",
                message,
                "this door has no TLS: use 127.0.0.1 or [::1]",
            );
        }
        let users = self.users(&section.users);
        Some(Session {
            socket,
            listen: listen?,
            users,
        })
    }

    fn users(&mut self, written: &BTreeMap<String, String>) -> BTreeMap<u32, UserId> {
        let mut users = BTreeMap::new();
        for (uid, user) in written {
            match uid.parse::<u32>() {
                Ok(number) if number.to_string() == *uid => match UserId::parse(user) {
                    Ok(user) => {
                        users.insert(number, user);
                    }
                    Err(error) => self.add(
                        "session.users",
                        format!("uid {uid}: {error}"),
                        "name a user",
                    ),
                },
                _ => {
                    let message = format!("`{}` is not a uid", uid.escape_debug());
                    self.add(
                        "session.users",
                        message,
                        "write numeric uids, as in \"1000\" = \"alice\"",
                    );
                }
            }
        }
        users
    }

    pub(super) fn listeners_apart(&mut self, listeners: &[(&str, Option<SocketAddr>)]) {
        let open: Vec<_> = listeners
            .iter()
            .filter_map(|(key, at)| at.map(|at| (*key, at)))
            .collect();
        for (position, (key, address)) in open.iter().enumerate() {
            let clash = open.iter().take(position).find(|(_, other)| {
                let same_host = other.ip() == address.ip()
                    || other.ip().is_unspecified()
                    || address.ip().is_unspecified();
                address.port() != 0 && other.port() == address.port() && same_host
            });
            if let Some((other, _)) = clash {
                self.add(
                    key,
                    format!("{address} is taken by {other}"),
                    "give each listener a port of its own",
                );
            }
        }
    }
}
