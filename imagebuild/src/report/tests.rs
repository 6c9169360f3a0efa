// SPDX-License-Identifier: Apache-2.0
//! The page of a small, made-up image, and what refuses an image or its manifest.
#![allow(clippy::unwrap_used)]
