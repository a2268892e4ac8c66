//! What `/metrics` shows, as OTLP has it: the same names, labels and values.
//!
//! Invariant: counters and histograms are cumulative since the process began; a kind of metric that this program does not make
//! is left out rather than guessed.

use opentelemetry::Value;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_sdk::Resource;
use prometheus::proto::{LabelPair, Metric as Sample, MetricFamily, MetricType};

/// The request that holds `families`; `(began, now)` in milliseconds since the Unix epoch.
pub(super) fn request(
    families: &[MetricFamily],
    resource: &Resource,
    (began, now): (i64, i64),
) -> ExportMetricsServiceRequest {
    let times = (nanos(began), nanos(now));
    let metrics = families
        .iter()
        .filter_map(|family| metric(family, times))
        .collect();
    let scope = InstrumentationScope {
        name: "mosaic-federation".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(ProtoResource {
                attributes: resource
                    .iter()
                    .map(|(key, value)| attribute(key.as_str(), value_of(value)))
                    .collect(),
                ..ProtoResource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

fn nanos(millis: i64) -> u64 {
    u64::try_from(millis)
        .unwrap_or_default()
        .saturating_mul(1_000_000)
}

fn metric(family: &MetricFamily, times: (u64, u64)) -> Option<Metric> {
    let samples = family.get_metric().iter();
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match family.get_field_type() {
        MetricType::COUNTER => metric::Data::Sum(Sum {
            data_points: samples
                .map(|sample| number(sample, sample.get_counter().get_value(), times))
                .collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::GAUGE => metric::Data::Gauge(Gauge {
            data_points: samples
                .map(|sample| number(sample, sample.get_gauge().get_value(), times))
                .collect(),
        }),
        MetricType::HISTOGRAM => metric::Data::Histogram(Histogram {
            data_points: samples.map(|sample| histogram(sample, times)).collect(),
            aggregation_temporality: cumulative,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    let name = family.name();
    let unit = ["seconds", "bytes"]
        .into_iter()
        .find(|unit| name.trim_end_matches("_total").ends_with(unit));
    Some(Metric {
        name: name.to_owned(),
        description: family.help().to_owned(),
        unit: match unit {
            Some("seconds") => "s",
            Some("bytes") => "By",
            _ => "",
        }
        .to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

fn number(sample: &Sample, value: f64, (began, now): (u64, u64)) -> NumberDataPoint {
    NumberDataPoint {
        attributes: labels(sample.get_label()),
        start_time_unix_nano: began,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn histogram(sample: &Sample, (began, now): (u64, u64)) -> HistogramDataPoint {
    let of = sample.get_histogram();
    let finite = of
        .get_bucket()
        .iter()
        .filter(|bucket| bucket.upper_bound().is_finite());
    // Prometheus counts upwards, OTLP each bucket by itself and one more above the last bound.
    let mut below = 0;
    let (mut bounds, mut counts) = (Vec::new(), Vec::new());
    for bucket in finite {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    counts.push(of.get_sample_count().saturating_sub(below));
    HistogramDataPoint {
        attributes: labels(sample.get_label()),
        start_time_unix_nano: began,
        time_unix_nano: now,
        count: of.get_sample_count(),
        sum: Some(of.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn labels(pairs: &[LabelPair]) -> Vec<KeyValue> {
    pairs
        .iter()
        .map(|pair| {
            let value = any_value::Value::StringValue(pair.value().to_owned());
            attribute(pair.name(), value)
        })
        .collect()
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn value_of(value: &Value) -> any_value::Value {
    match value {
        Value::Bool(value) => any_value::Value::BoolValue(*value),
        Value::I64(value) => any_value::Value::IntValue(*value),
        Value::F64(value) => any_value::Value::DoubleValue(*value),
        other => any_value::Value::StringValue(other.as_str().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

    use super::*;

    #[test]
    fn what_is_shown_is_what_is_sent() {
        let registry = Registry::new();
        let count = IntCounterVec::new(Opts::new("a_total", "Things."), &["kind"]).unwrap();
        count.with_label_values(&["x"]).inc_by(3);
        let gauge = IntGauge::new("b_bytes", "Size.").unwrap();
        gauge.set(-7);
        let times = HistogramVec::new(
            HistogramOpts::new("c_seconds", "Times.").buckets(vec![1.0, 2.0]),
            &[],
        )
        .unwrap();
        for took in [0.5, 0.5, 1.5, 9.0] {
            times.with_label_values::<&str>(&[]).observe(took);
        }
        registry.register(Box::new(count)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(times)).unwrap();
        let resource = crate::telemetry::otlp::resource("one");
        let request = request(&registry.gather(), &resource, (5, 9));

        let sent = &request.resource_metrics[0];
        let attributes = &sent.resource.as_ref().unwrap().attributes;
        let keys: Vec<_> = attributes.iter().map(|pair| pair.key.as_str()).collect();
        assert!(keys.contains(&"service.name") && keys.contains(&"service.instance.id"));
        let metrics = &sent.scope_metrics[0].metrics;
        let [a, b, c] = metrics.as_slice() else {
            panic!("{metrics:?}");
        };
        let Some(metric::Data::Sum(sum)) = &a.data else {
            panic!("{a:?}");
        };
        assert!(sum.is_monotonic);
        let point = &sum.data_points[0];
        assert_eq!(
            (point.start_time_unix_nano, point.time_unix_nano),
            (5_000_000, 9_000_000)
        );
        assert_eq!(point.value, Some(number_data_point::Value::AsDouble(3.0)));
        assert_eq!(point.attributes[0].key, "kind");
        assert!(matches!(&b.data, Some(metric::Data::Gauge(gauge))
            if gauge.data_points[0].value == Some(number_data_point::Value::AsDouble(-7.0))));
        assert_eq!((b.unit.as_str(), c.unit.as_str()), ("By", "s"));
        let Some(metric::Data::Histogram(histogram)) = &c.data else {
            panic!("{c:?}");
        };
        let point = &histogram.data_points[0];
        assert_eq!(point.explicit_bounds, [1.0, 2.0]);
        assert_eq!(point.bucket_counts, [2, 1, 1]);
        assert_eq!((point.count, point.sum), (4, Some(11.5)));
    }
}
