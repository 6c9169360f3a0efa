// SPDX-License-Identifier: Apache-2.0
//! What stands on the label of a device, whatever it is printed by.

use super::make::Device;
use qrcodegen::{QrCode, QrCodeEcc};

/// The label of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Node name; the name of its seed's file where the device makes its name itself.
    pub title: String,
    /// Place, serial number, MAC address, remark and all columns `x-…` that have a value.
    pub lines: Vec<String>,
    /// What the QR code holds: the serial number, or else the title.
    pub code: String,
}

impl Label {
    /// The label of `device`; with its token where `secrets` is set.
    pub fn new(device: &Device, secrets: bool) -> Label {
        let column = |name: &str| device.columns.get(name).filter(|value| !value.is_empty());
        let title = device.name.clone().unwrap_or_else(|| device.id.clone());
        let mut lines: Vec<String> = column("place").into_iter().cloned().collect();
        for name in ["serial", "mac"] {
            lines.extend(column(name).map(|value| format!("{name} {value}")));
        }
        lines.extend(column("note").cloned());
        let others = device.columns.iter().filter(|(_, value)| !value.is_empty());
        lines.extend(others.filter_map(|(name, value)| Some(format!("{} {value}", name.strip_prefix("x-")?))));
        if secrets && let Some(token) = token(&device.seed) {
            lines.push(format!("token {token}"));
        }
        let code = column("serial").cloned().unwrap_or_else(|| title.clone());
        Label { title, lines, code }
    }

    /// The modules of the QR code (ISO/IEC 18004), row by row; `true` is black. Empty for what no code can hold.
    pub fn modules(&self) -> Vec<Vec<bool>> {
        let Ok(code) = QrCode::encode_text(&self.code, QrCodeEcc::Medium) else { return Vec::new() };
        (0..code.size()).map(|y| (0..code.size()).map(|x| code.get_module(x, y)).collect()).collect()
    }
}

/// Black modules of a row that stand together: the first one, and how many.
pub fn runs(row: &[bool]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for x in row.iter().enumerate().filter_map(|(x, black)| black.then_some(x)) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == x => *count += 1,
            _ => runs.push((x, 1)),
        }
    }
    runs
}

fn token(seed: &str) -> Option<String> {
    match firstboot::seed::parse_request(seed.as_bytes()) {
        Ok(firstboot::seed::SeedRequest::Join(seed)) => seed.token().map(|token| token.bearer().to_string()),
        _ => None,
    }
}

/// Devices and labels for tests.
#[cfg(test)]
pub mod testing {
    use super::*;
    use std::collections::BTreeMap;

    /// A device of the table with the secret `0123456789abcdef`.
    pub fn device(number: u64, place: &str) -> Device {
        let column = |name: &str, value: String| (name.to_owned(), value);
        Device {
            line: number + 1,
            id: format!("edge-{number}"),
            name: Some(format!("edge-{number}")),
            columns: BTreeMap::from([
                column("place", place.to_owned()),
                column("serial", format!("10000000a3f2b1{number:02}")),
                column("x-rack", "7 & 8".to_owned()),
                column("cluster.token", "abcdef.0123456789abcdef".to_owned()),
            ]),
            seed: format!(
                "version = 1\n[cluster]\napiserver = \"a:1\"\ntoken = \"abcdef.0123456789abcdef\"\n\
                 ca-cert-hashes = [\"sha256:{}\"]\n",
                "0".repeat(64)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_no_secret_unless_it_is_asked_for() {
        let device = testing::device(1, "Shop 12");
        let label = Label::new(&device, false);
        assert_eq!(label.title, "edge-1");
        assert_eq!(label.lines, ["Shop 12", "serial 10000000a3f2b101", "rack 7 & 8"]);
        assert_eq!(label.code, "10000000a3f2b101");
        assert_eq!(Label::new(&device, true).lines[3], "token abcdef.0123456789abcdef");
    }

    #[test]
    fn modules_that_stand_together_are_one_run() {
        assert_eq!(runs(&[true, true, false, true]), [(0, 2), (3, 1)]);
        assert_eq!(runs(&[false]), []);
    }

    #[test]
    fn a_code_is_a_square_with_its_three_corners() {
        let modules = Label::new(&testing::device(1, ""), false).modules();
        let size = modules.len();
        assert!(size == 25 && modules.iter().all(|row| row.len() == size));
        for (x, y) in [(0, 0), (size - 7, 0), (0, size - 7)] {
            assert!(modules[y][x..x + 7].iter().all(|black| *black) && !modules[y + 1][x + 1]);
        }
    }
}
