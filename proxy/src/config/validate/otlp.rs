//! The `[otlp]` section: where traces and metrics are sent, and how.
//!
//! Invariant: a key that would have no effect is a problem; no credential leaves the machine in the clear.

use std::net::IpAddr;
use std::time::Duration;

use super::super::url::bare_origin;
use super::super::{Otlp, OtlpTraces, settings};
use super::Check;

impl Check<'_> {
    pub(super) fn otlp(&mut self, section: &settings::Otlp) -> Option<Otlp> {
        let Some(endpoint) = &section.endpoint else {
            self.otlp_without_effect("otlp.", "otlp.endpoint", "name the collector, or remove it");
            return None;
        };
        let (is_https, is_local) = match bare_origin(endpoint, &["http", "https"]) {
            Ok((scheme, authority)) => {
                let host = authority.host().trim_matches(['[', ']']);
                let is_local =
                    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
                (scheme.as_str() == "https", is_local)
            }
            Err(message) => {
                let hint = "write http://host:port or https://host:port";
                self.add("otlp.endpoint", message, hint);
                return None;
            }
        };
        let mut file =
            |key: &str, text: &Option<String>| text.as_deref().map(|text| self.path(key, text));
        let root_file = file("otlp.root_file", &section.root_file);
        let authorization_file = file("otlp.authorization_file", &section.authorization_file);
        if is_https && root_file.is_none() {
            let message = "is required with an https collector".to_owned();
            let hint = "name the file with the root certificate of the collector";
            self.add("otlp.root_file", message, hint);
        }
        if !is_https && root_file.is_some() {
            let message = "has no effect: the collector is asked without TLS".to_owned();
            self.add("otlp.root_file", message, "remove it, or use https");
        }
        if !is_https && !is_local && authorization_file.is_some() {
            let message = "would be sent in the clear to another machine".to_owned();
            let hint = "use https, or remove it";
            self.add("otlp.authorization_file", message, hint);
        }
        if !section.traces && !section.metrics {
            let message = "both are off: nothing would be sent".to_owned();
            let hint = "switch traces or metrics on, or remove the endpoint";
            self.add("otlp.traces", message, hint);
        }
        for (is_on, what, keys) in [
            (
                section.traces,
                "otlp.traces",
                &["otlp.sample_percent", "otlp.join_peers"][..],
            ),
            (section.metrics, "otlp.metrics", &["otlp.metrics_every_s"]),
        ] {
            for key in keys {
                if !is_on {
                    self.otlp_without_effect(key, what, "switch that on, or remove this");
                }
            }
        }
        Some(Otlp {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            root_file,
            authorization_file,
            traces: section.traces.then_some(OtlpTraces {
                sample_percent: section.sample_percent,
                join_peers: section.join_peers,
            }),
            metrics: section
                .metrics
                .then(|| Duration::from_secs(section.metrics_every_s.into())),
        })
    }

    /// A problem for each key that begins with `prefix` and was written.
    fn otlp_without_effect(&mut self, prefix: &str, without: &str, hint: &str) {
        let written: Vec<String> = self
            .sources
            .keys()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect();
        for key in written {
            self.add(&key, format!("has no effect without {without}"), hint);
        }
    }
}
