// SPDX-License-Identifier: Apache-2.0
//! Two things measured in alternating pairs: medians, and the ratio of each pair with its spread. A build machine
//! that gets slower makes both slower, so only ratios are meaningful.

use serde::Serialize;

/// One measure of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub measure: &'static str,
    /// Median of ours.
    pub ours: f64,
    /// Median of the peer's.
    pub peer: f64,
    /// Median of ours / peer's over the pairs; none where the peer has 0.
    pub ratio: Option<f64>,
    /// Smallest and largest of those ratios.
    pub spread: Option<[f64; 2]>,
}

/// The row of one measure; the n-th of one and the n-th of the other are a pair.
pub fn row(measure: &'static str, ours: Vec<f64>, theirs: Vec<f64>) -> Row {
    let ratios: Vec<f64> = ours.iter().zip(&theirs).filter(|(_, t)| **t > 0.0).map(|(o, t)| o / t).collect();
    let least = ratios.iter().copied().reduce(f64::min);
    let most = ratios.iter().copied().reduce(f64::max);
    Row {
        measure,
        ours: median(ours).unwrap_or_default(),
        peer: median(theirs).unwrap_or_default(),
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

/// The table for a terminal; `names` are what ours and the peer are called.
pub fn table(rows: &[Row], names: [&str; 2]) -> String {
    let [ours, peer] = names;
    let mut text = format!("{:<28}{ours:>12}{peer:>12}{:>9}   spread\n", "", "ratio");
    for row in rows {
        let ratio = row.ratio.map_or("–".to_owned(), |r| format!("{r:.2}"));
        let spread = row.spread.map_or(String::new(), |[a, b]| format!("{a:.2} … {b:.2}"));
        let (ours, theirs) = (number(row.ours), number(row.peer));
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
        assert_eq!((row.ours, row.peer), (2.0, 4.0));
        assert_eq!((row.ratio, row.spread), (Some(0.5), Some([0.25, 1.0])));
        assert_eq!(
            table(&[row], ["firstboot", "kubeadm"]).lines().nth(1).unwrap(),
            "x                                      2           4     0.50   0.25 … 1.00"
        );
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let row = row("x", vec![0.0], vec![0.0]);
        assert_eq!((row.ratio, row.spread), (None, None));
    }
}
