// SPDX-License-Identifier: Apache-2.0
//! `imagebuild`: images, bundles and seeds.

fn main() {}
