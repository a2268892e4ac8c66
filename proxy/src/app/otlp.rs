//! Sending traces and metrics: what is made at the start, and how it ends.
//!
//! Invariant: nothing is sent but to the collector of the settings; without one nothing is made. What ended before the sidecar
//! stops is sent once more, within a bound.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certs::clock::Clock;
use opentelemetry_sdk::Resource;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Base, StartError};
use crate::config;
use crate::telemetry::Metrics;
use crate::telemetry::otlp::{Collector, Refresh, SpanSender, resource, send_metrics, span_queue};
use crate::telemetry::spans::{SpanRules, Spans};

/// What sends, as long as the sidecar runs.
pub(super) struct Sending {
    spans: Spans,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    figures: Option<Figures>,
}

/// What sends metrics, until there is somebody who brings them up to date.
struct Figures {
    collector: Collector,
    every: Duration,
    resource: Resource,
    parts: (Arc<Metrics>, Arc<dyn Clock>),
    stopped: watch::Receiver<bool>,
}

impl Sending {
    /// Where spans are made.
    pub(super) fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Begins to send metrics, if the settings ask for it; `refresh` is called each time before they are read.
    pub(super) fn send_metrics(&mut self, refresh: Refresh) {
        if let Some(figures) = self.figures.take() {
            let often = (figures.every, figures.resource);
            let (parts, stopped) = (figures.parts, figures.stopped);
            let task = send_metrics(figures.collector, often, parts, refresh, stopped);
            self.tasks.spawn(task);
        }
    }

    /// Sends what is left; nothing begins any more.
    pub(super) async fn end(mut self) {
        self.spans.end();
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts what the settings ask for.
pub(super) async fn start(base: &Base) -> Result<Sending, StartError> {
    let (stop, stopped) = watch::channel(false);
    let mut sending = Sending {
        spans: Spans::off(),
        stop,
        tasks: JoinSet::new(),
        figures: None,
    };
    let Some(settings) = &base.config.otlp else {
        return Ok(sending);
    };
    let collector = collector(base, settings)?;
    let instance = base.store.store_id().await?.to_string();
    let resource = resource(&instance);
    let metrics = &base.metrics;
    if let Some(traces) = settings.traces {
        metrics.otlp.expect(&["traces"]);
        let (queue, ended) = span_queue(Arc::clone(metrics));
        let sender = SpanSender::new(collector.clone(), ended, &resource, Arc::clone(metrics))
            .map_err(|error| StartError::Otlp(error.to_string()))?;
        let rules = SpanRules {
            percent: traces.sample_percent,
            join_peers: traces.join_peers,
        };
        sending.spans = Spans::to(queue, rules, resource.clone());
        sending.tasks.spawn(sender.run(stopped.clone()));
    }
    if let Some(every) = settings.metrics {
        metrics.otlp.expect(&["metrics"]);
        sending.figures = Some(Figures {
            collector,
            every,
            resource,
            parts: (Arc::clone(metrics), Arc::clone(&base.clock)),
            stopped,
        });
    }
    Ok(sending)
}

fn collector(base: &Base, settings: &config::Otlp) -> Result<Collector, StartError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| {
            StartError::Otlp(format!("`{}` cannot be read: {error}", path.display()))
        })
    };
    let roots = match &settings.root_file {
        None => Vec::new(),
        Some(path) => {
            let roots = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
            roots.map_err(|error| {
                StartError::Otlp(format!("`{}` is not PEM: {error}", path.display()))
            })?
        }
    };
    let authorization = settings
        .authorization_file
        .as_deref()
        .map(read)
        .transpose()?;
    let authorization = authorization
        .as_deref()
        .map(std::str::from_utf8)
        .transpose()
        .map_err(|_| StartError::Otlp("the authorization file is not text".to_owned()))?;
    Collector::new(
        &settings.endpoint,
        roots,
        authorization,
        Arc::clone(&base.clock),
    )
    .map_err(|error| StartError::Otlp(format!("`{}`: {error}", settings.endpoint)))
}
