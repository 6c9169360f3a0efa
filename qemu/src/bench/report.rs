// SPDX-License-Identifier: Apache-2.0
//! What is measured of a join, and the rows of the bench's report.

use super::Program;
use super::sample::Sample;
use crate::pairs::{Row, row};

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
