//! The `[revocation]` section: where lists are read, and what is demanded of them.

use std::fmt;
use std::time::Duration;

use super::super::{ListUrl, Revocation, Roles, settings};
use super::Check;

impl Check<'_> {
    pub(super) fn revocation(
        &mut self,
        section: &settings::Revocation,
        has_root: bool,
        roles: Roles,
    ) -> Option<Revocation> {
        let files = section
            .files
            .iter()
            .map(|file| self.path("revocation.files", file))
            .collect();
        let mut urls = Vec::with_capacity(section.urls.len());
        let mut is_good = true;
        for url in &section.urls {
            match ListUrl::parse(url) {
                Ok(url) if urls.contains(&url) => {
                    is_good = false;
                    let message = format!("`{url}` is named twice");
                    self.add("revocation.urls", message, "name each address once");
                }
                Ok(url) => urls.push(url),
                Err(message) => {
                    is_good = false;
                    let hint = "write it as https://host:port/path";
                    self.add("revocation.urls", message, hint);
                }
            }
        }
        let root_file = section
            .root_file
            .as_deref()
            .map(|file| self.path("revocation.root_file", file));
        if root_file.is_some() && urls.is_empty() {
            let message = "has no effect without revocation.urls".to_owned();
            self.add(
                "revocation.root_file",
                message,
                "remove it, or name an address",
            );
        }
        if root_file.is_none() && !urls.is_empty() && !has_root {
            is_good = false;
            let message = "is required with revocation.urls and the embedded authority".to_owned();
            let hint = "name the file with the root certificate of that server";
            self.add("revocation.root_file", message, hint);
        }
        let issuers_file = section
            .issuers_file
            .as_deref()
            .map(|file| self.path("revocation.issuers_file", file));
        let named = !section.files.is_empty() || !section.urls.is_empty();
        if named && !roles.serve {
            let message =
                "has no effect without roles.serve: nobody's certificate is checked".to_owned();
            let key = if urls.is_empty() {
                "revocation.files"
            } else {
                "revocation.urls"
            };
            self.add(key, message, "remove it, or switch roles.serve on");
        }
        is_good.then_some(Revocation {
            files,
            urls,
            root_file,
            issuers_file,
            required: section.required.unwrap_or(named),
            refresh: Duration::from_secs(section.refresh_s),
            grace: Duration::from_secs(section.grace_s),
        })
    }
}

impl ListUrl {
    /// An https URL with a path.
    fn parse(url: &str) -> Result<Self, String> {
        let uri: http::Uri = url
            .parse()
            .map_err(|error| format!("`{}` is not a URL: {error}", url.escape_debug()))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("`{url}` is not https"));
        }
        let authority = uri
            .authority()
            .ok_or_else(|| format!("`{url}` has no host"))?;
        if authority.as_str().contains('@') || url.contains('#') {
            return Err(format!("`{url}` has more than host, port, path and query"));
        }
        let path = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Self {
            origin: format!("https://{authority}"),
            path: path.to_owned(),
        })
    }

    /// Origin and path.
    #[must_use]
    pub fn split(&self) -> (&str, &str) {
        (&self.origin, &self.path)
    }
}

impl fmt::Display for ListUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}
