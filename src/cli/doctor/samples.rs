//! Values out of the text that a node gives to Prometheus: the same that its graphs show. Pure.

use std::collections::BTreeMap;

/// Values by name, each with its labels as they stand between the braces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(BTreeMap<String, Vec<(String, f64)>>);

impl Samples {
    /// What the text holds; a line that is no sample is passed over.
    pub fn of(text: &str) -> Self {
        let mut all: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or(labels)),
                None => (series, ""),
            };
            all.entry(name.to_owned()).or_default().push((labels.to_owned(), value));
        }
        Self(all)
    }

    /// Each value of that name with its labels.
    pub fn all(&self, name: &str) -> &[(String, f64)] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a metric without labels.
    pub fn one(&self, name: &str) -> Option<f64> {
        self.all(name).first().map(|(_, value)| *value)
    }

    /// The largest of all values of that name.
    pub fn largest(&self, name: &str) -> Option<f64> {
        self.all(name).iter().map(|(_, value)| *value).reduce(f64::max)
    }

    /// The bound that this share of what a histogram has counted does not exceed; infinite above all bounds, none if
    /// less than `least` were counted.
    pub fn quantile(&self, name: &str, share: f64, least: f64) -> Option<f64> {
        let buckets = self.all(&format!("{name}_bucket"));
        let total = buckets.last().map(|(_, count)| *count).filter(|total| *total >= least)?;
        let reached = buckets.iter().find(|(_, count)| *count >= share * total)?;
        match label(&reached.0, "le")? {
            "+Inf" => Some(f64::INFINITY),
            bound => bound.parse().ok(),
        }
    }
}

/// The value of a label; it holds no quote, as names of nodes and shards do not.
pub fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| {
        let value = pair.strip_prefix(name)?.strip_prefix("=\"")?;
        value.strip_suffix('"')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_and_label() {
        let samples = Samples::of(
            "# HELP a What it is.\n# TYPE a gauge\na 3\nb{shard=\"s1\",node=\"n2\"} 0\n\
             b{shard=\"s2\",node=\"n1\"} 1.5\nnonsense\nc x\n\
             h_bucket{le=\"0.001\"} 90\nh_bucket{le=\"0.25\"} 99\nh_bucket{le=\"+Inf\"} 100\n",
        );
        assert_eq!((samples.one("a"), samples.one("c"), samples.one("z")), (Some(3.0), None, None));
        assert_eq!((samples.all("b").len(), samples.largest("b")), (2, Some(1.5)));
        let labels = &samples.all("b")[0].0;
        assert_eq!((label(labels, "node"), label(labels, "le")), (Some("n2"), None));
        assert_eq!(samples.quantile("h", 0.5, 1.0), Some(0.001));
        assert_eq!(samples.quantile("h", 0.99, 100.0), Some(0.25));
        assert_eq!(samples.quantile("h", 1.0, 1.0), Some(f64::INFINITY));
        assert_eq!(samples.quantile("h", 0.5, 101.0), None, "too few");
    }
}
