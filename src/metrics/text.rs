//! Writes the text format of Prometheus, for what does not go through the recorder.

use std::fmt::{Display, Write};

use super::histogram::{BOUNDS, Histogram};

/// What a family of samples is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Counter,
    Gauge,
    Histogram,
}

impl Family {
    fn as_str(self) -> &'static str {
        match self {
            Family::Counter => "counter",
            Family::Gauge => "gauge",
            Family::Histogram => "histogram",
        }
    }
}

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub struct Text(String);

impl From<String> for Text {
    fn from(begun: String) -> Self {
        Text(begun)
    }
}

impl Text {
    /// Begins a family; all its samples must follow before the next begins.
    pub fn family<'a>(&'a mut self, name: &'a str, family: Family, help: &str) -> Samples<'a> {
        let kind = family.as_str();
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Samples { text: self, name }
    }

    pub fn into_string(self) -> String {
        self.0
    }

    fn write(&mut self, text: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{text}");
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.write(format_args!("{name}{suffix}"));
        for (index, (key, value)) in labels.iter().enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{opening}{key}=\"{}\"", Escaped(value)));
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{closing} {value}\n"));
    }
}

/// One family's samples.
pub struct Samples<'a> {
    text: &'a mut Text,
    name: &'a str,
}

impl Samples<'_> {
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.sample(self.name, "", labels, value);
    }

    /// All samples of one histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut total = 0;
        let bounds = BOUNDS.iter().map(|(_, le)| *le).chain(["+Inf"]);
        for (le, count) in bounds.zip(histogram.counts()) {
            total += count;
            let mut labels = labels.to_vec();
            labels.push(("le", le));
            self.text.sample(self.name, "_bucket", &labels, total);
        }
        let sum = histogram.sum().as_secs_f64();
        self.text.sample(self.name, "_sum", labels, sum);
        self.text.sample(self.name, "_count", labels, total);
    }
}

/// A label's value, with the three characters that the format reserves escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_help_type_and_escaped_labels() {
        let mut text = Text::default();
        let mut family = text.family("pgsluice_x", Family::Gauge, "An x.");
        family.sample(&[], 1);
        family.sample(&[("node", "a\"b\\c\nd"), ("role", "primary")], 0);
        assert_eq!(
            text.into_string(),
            "# HELP pgsluice_x An x.\n# TYPE pgsluice_x gauge\npgsluice_x 1\n\
             pgsluice_x{node=\"a\\\"b\\\\c\\nd\",role=\"primary\"} 0\n"
        );
    }
}
