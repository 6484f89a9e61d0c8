//! Figures, as a table for people and as JSON for programs.

use std::path::Path;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::machine::Machine;

/// One thing measured. `value` is a median over the rounds; what was not measured is `None`.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) value: Option<f64>,
    /// What the machine itself gave in the same run, in the same unit.
    pub(crate) ceiling: Option<f64>,
    /// `value / ceiling`, the median of the rounds' own ratios.
    pub(crate) ratio: Option<f64>,
    /// Latency of one operation, microseconds.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// What the ceiling is. For people.
    #[serde(skip)]
    pub(crate) beside: &'static str,
}

/// A command's result.
#[derive(Serialize)]
pub(crate) struct Report {
    commit: String,
    machine: Machine,
    settings: serde_json::Value,
    figures: Vec<Figure>,
    /// Why the run failed, although it has figures.
    #[serde(skip)]
    failure: Option<String>,
}

impl Report {
    pub(crate) fn new(settings: serde_json::Value, figures: Vec<Figure>) -> Self {
        Self { commit: crate::machine::commit(), machine: Machine::here(), settings, figures, failure: None }
    }

    /// The same, of a run that failed.
    pub(crate) fn failed(self, why: String) -> Self {
        Self { failure: Some(why), ..self }
    }

    /// An error where the run failed. To be asked when its figures are out.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        self.failure.as_ref().map_or(Ok(()), |why| Err(anyhow::anyhow!("{why}")))
    }

    pub(crate) fn print(&self) {
        println!("\ncommit {}, {}", self.commit, self.machine);
        println!("{}", self.settings);
        let wide = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(6);
        println!(
            "\n{:wide$} {:>12} {:7} {:>12} {:>6} {:>10} {:>10}  beside",
            "figure", "value", "unit", "ceiling", "ratio", "p50 us", "p99 us"
        );
        for figure in &self.figures {
            println!(
                "{:wide$} {:>12} {:7} {:>12} {:>6} {:>10} {:>10}  {}",
                figure.name,
                number(figure.value, digits(figure.value)),
                figure.unit,
                number(figure.ceiling, digits(figure.ceiling)),
                number(figure.ratio, 2),
                number(figure.p50, 0),
                number(figure.p99, 0),
                figure.beside
            );
        }
    }

    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("write the figures to {}", path.display()))
    }
}

/// Small values are ratios and seconds, whose third digit counts.
fn digits(value: Option<f64>) -> usize {
    if value.is_some_and(|value| value.abs() < 10.0) { 3 } else { 1 }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// One figure as its rounds come in.
struct Series {
    name: String,
    unit: &'static str,
    beside: &'static str,
    values: Vec<f64>,
    ceilings: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// All figures of a run, in the order in which they were first added.
#[derive(Default)]
pub(crate) struct Board(Vec<Series>);

impl Board {
    /// One round's value of the figure `name`, with the latency of its operations in microseconds.
    pub(crate) fn add(
        &mut self,
        name: &str,
        unit: &'static str,
        value: f64,
        latency: &Histogram<u64>,
        ceiling: Option<f64>,
        beside: &'static str,
    ) {
        let series = self.series(name, unit, beside);
        series.values.push(value);
        series.ceilings.extend(ceiling);
        #[expect(clippy::cast_precision_loss, reason = "microseconds, far below 2^52")]
        let at = |quantile| latency.value_at_quantile(quantile) as f64;
        series.p50.push(at(0.5));
        series.p99.push(at(0.99));
    }

    /// A value without latency, beside what the machine itself takes for the same.
    pub(crate) fn add_beside(
        &mut self,
        name: &str,
        unit: &'static str,
        value: f64,
        ceiling: f64,
        beside: &'static str,
    ) {
        let series = self.series(name, unit, beside);
        series.values.push(value);
        series.ceilings.push(ceiling);
    }

    /// A value that has neither latency nor ceiling.
    pub(crate) fn add_plain(&mut self, name: &str, unit: &'static str, value: f64) {
        self.series(name, unit, "").values.push(value);
    }

    fn series(&mut self, name: &str, unit: &'static str, beside: &'static str) -> &mut Series {
        let index = self.0.iter().position(|series| series.name == name).unwrap_or_else(|| {
            let name = name.to_owned();
            self.0.push(Series { name, unit, beside, values: vec![], ceilings: vec![], p50: vec![], p99: vec![] });
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    /// The medians.
    pub(crate) fn figures(self) -> Vec<Figure> {
        let figure = |series: Series| {
            let ratios = series.values.iter().zip(&series.ceilings).map(|(value, ceiling)| value / ceiling).collect();
            Figure {
                name: series.name,
                unit: series.unit,
                value: median(series.values),
                ceiling: median(series.ceilings),
                ratio: median(ratios),
                p50: median(series.p50),
                p99: median(series.p99),
                beside: series.beside,
            }
        };
        self.0.into_iter().map(figure).collect()
    }
}

/// The middle of `values`, or nothing where there are none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
