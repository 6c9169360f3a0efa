// SPDX-License-Identifier: Apache-2.0
//! The bench's table and `out/bench/report.json`: medians, and the ratio of each pair with its spread.

use super::Program;
use super::sample::Sample;
use serde::Serialize;

/// One row: what it is, and how it is read from a sample.
type Measure = (&'static str, fn(&Sample) -> f64);

const MEASURES: [Measure; 7] = [
    ("to certificate, s", |s| s.certificate),
    ("to kubelet healthy, s", |s| s.kubelet_healthy),
    ("to Ready, s", |s| s.ready),
    ("CPU of the program, s", |s| s.cpu),
    ("peak memory, MiB", |s| s.peak_mib),
    ("API requests to join", |s| s.requests as f64),
    ("token left on disk, places", |s| s.token_places as f64),
];

/// One measure of both programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub measure: &'static str,
    /// Median of firstboot.
    pub firstboot: f64,
    /// Median of kubeadm.
    pub kubeadm: f64,
    /// Median of firstboot / kubeadm over the pairs; none where kubeadm has 0.
    pub ratio: Option<f64>,
    /// Smallest and largest of those ratios.
    pub spread: Option<[f64; 2]>,
}

/// All rows of these samples, in which the n-th of one program and the n-th of the other are a pair.
pub fn rows(samples: &[Sample], sizes: [u64; 2]) -> Vec<Row> {
    let of = |program| samples.iter().filter(move |s| s.program == program);
    let mut rows: Vec<Row> = MEASURES
        .iter()
        .map(|(name, read)| {
            row(name, of(Program::Firstboot).map(read).collect(), of(Program::Kubeadm).map(read).collect())
        })
        .collect();
    rows.push(row("binary, bytes", vec![sizes[0] as f64], vec![sizes[1] as f64]));
    rows
}

fn row(measure: &'static str, ours: Vec<f64>, theirs: Vec<f64>) -> Row {
    let ratios: Vec<f64> = ours.iter().zip(&theirs).filter(|(_, t)| **t > 0.0).map(|(o, t)| o / t).collect();
    let least = ratios.iter().copied().reduce(f64::min);
    let most = ratios.iter().copied().reduce(f64::max);
    Row {
        measure,
        firstboot: median(ours).unwrap_or_default(),
        kubeadm: median(theirs).unwrap_or_default(),
        ratio: median(ratios),
        spread: least.zip(most).map(|(a, b)| [a, b]),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The table for a terminal.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<28}{:>12}{:>12}{:>9}   spread\n", "", "firstboot", "kubeadm", "ratio");
    for row in rows {
        let ratio = row.ratio.map_or("–".to_owned(), |r| format!("{r:.2}"));
        let spread = row.spread.map_or(String::new(), |[a, b]| format!("{a:.2} … {b:.2}"));
        let (ours, theirs) = (number(row.firstboot), number(row.kubeadm));
        text += format!("{:<28}{ours:>12}{theirs:>12}{ratio:>9}   {spread}", row.measure).trim_end();
        text.push('\n');
    }
    text
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let row = row("x", vec![1.0, 4.0, 2.0], vec![2.0, 4.0, 8.0]);
        assert_eq!((row.firstboot, row.kubeadm), (2.0, 4.0));
        assert_eq!((row.ratio, row.spread), (Some(0.5), Some([0.25, 1.0])));
        assert_eq!(
            table(&[row]).lines().nth(1).unwrap(),
            "x                                      2           4     0.50   0.25 … 1.00"
        );
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let row = row("x", vec![0.0], vec![0.0]);
        assert_eq!((row.ratio, row.spread), (None, None));
    }
}
