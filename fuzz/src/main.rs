// SPDX-License-Identifier: Apache-2.0
//! The door for libFuzzer: one program for all targets, which one by the environment variable `FUZZ_TARGET`.
//!
//! It must be built with coverage instrumentation; `make fuzz` (tests/src/bin/run-fuzz.rs) does.

#![no_main]

use std::sync::OnceLock;

use fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let known: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        match TARGETS.iter().find(|t| t.name == name) {
            Some(target) => TARGET.get_or_init(|| target),
            None => panic!("set FUZZ_TARGET to one of {}", known.join(", ")),
        };
    },
    |input: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(input);
        }
    }
);
