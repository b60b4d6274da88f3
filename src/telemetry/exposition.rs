//! Values of metrics, as the text that Prometheus reads.
//!
//! What may be said is what stands in the table of `metrics`; the format is the library's.

use super::metrics::{Kind, METRICS, Metric};
use crate::types::histogram::Counted;
use crate::types::{Code, Error, Result};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeMap;

/// Microseconds in a second: what latencies are counted in, and what is shown.
pub const US_PER_S: f64 = 1e6;

/// Values that were gathered.
#[derive(Debug, Default)]
pub struct Exposition {
    series: BTreeMap<&'static str, Vec<proto::Metric>>,
}

impl Exposition {
    /// A counter or a gauge; `labels` has a value for each label of the metric.
    pub fn value(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        let mut series = labelled(metric, labels);
        match metric.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                series.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                series.set_gauge(gauge);
            }
            Kind::Histogram => return debug_assert!(false, "{} has no one value", metric.name),
        }
        self.series.entry(metric.name).or_default().push(series);
    }

    /// A histogram whose values were counted in `per_unit`ths of the unit that is shown.
    pub fn histogram(
        &mut self,
        metric: &'static Metric,
        labels: &[&str],
        counted: &Counted,
        per_unit: f64,
    ) {
        let mut seen = 0;
        let buckets = counted.bounds.iter().zip(&counted.counts).map(|(bound, count)| {
            seen += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound as f64 / per_unit);
            bucket.set_cumulative_count(seen);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counted.total());
        histogram.set_sample_sum(counted.sum as f64 / per_unit);
        let mut series = labelled(metric, labels);
        series.set_histogram(histogram);
        self.series.entry(metric.name).or_default().push(series);
    }

    /// The text. Metrics without a value are left out.
    pub fn text(mut self) -> Result<String> {
        let families: Vec<MetricFamily> = METRICS
            .iter()
            .filter_map(|metric| Some(family(metric, self.series.remove(metric.name)?)))
            .collect();
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .map_err(|e| Error::new(Code::Internal, format!("metrics: {e}")))?;
        String::from_utf8(text).map_err(|e| Error::new(Code::Internal, format!("metrics: {e}")))
    }
}

fn labelled(metric: &Metric, values: &[&str]) -> proto::Metric {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut series = proto::Metric::default();
    series.set_label(metric.labels.iter().zip(values).map(pair).collect());
    series
}

fn family(metric: &Metric, series: Vec<proto::Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(series);
    family
}

#[cfg(test)]
mod tests {
    use super::super::metrics as m;
    use super::*;
    use crate::types::Histogram;
    use crate::types::histogram::LATENCY_BOUNDS_US;

    #[test]
    fn values_become_lines_with_their_labels_and_histograms_are_cumulative() {
        let mut exposition = Exposition::default();
        exposition.value(&m::SHED, &["write"], 3.0);
        exposition.value(&m::STRATEGY, &["a \"quoted\"\nname\\"], 1.0);
        let histogram = Histogram::new(LATENCY_BOUNDS_US);
        [100, 101, 99_000_000].into_iter().for_each(|us| histogram.observe(us));
        exposition.histogram(&m::WAL_FSYNC_DURATION, &[], &histogram.counted(), US_PER_S);
        let text = exposition.text().unwrap();
        for line in [
            "# TYPE ppdb_shed_total counter",
            "ppdb_shed_total{class=\"write\"} 3",
            "ppdb_strategy{strategy=\"a \\\"quoted\\\"\\nname\\\\\"} 1",
            "# TYPE ppdb_wal_fsync_duration_seconds histogram",
            "ppdb_wal_fsync_duration_seconds_bucket{le=\"0.0001\"} 1",
            "ppdb_wal_fsync_duration_seconds_bucket{le=\"0.00025\"} 2",
            "ppdb_wal_fsync_duration_seconds_bucket{le=\"10\"} 2",
            "ppdb_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 3",
            "ppdb_wal_fsync_duration_seconds_sum 99.000201",
            "ppdb_wal_fsync_duration_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("ppdb_epoch"), "what has no value is left out");
    }
}
