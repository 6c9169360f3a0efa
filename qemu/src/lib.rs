// SPDX-License-Identifier: Apache-2.0
//! Emulated devices and a real control plane, for the demo, the tests and the bench.
