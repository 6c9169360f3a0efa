// SPDX-License-Identifier: Apache-2.0
//! When and where a file was written last.

use serde::{Deserialize, Serialize};

/// Inode, time of the last change of content, and size in bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub(super) inode: u64,
    pub(super) seconds: i64,
    pub(super) nanoseconds: u64,
    pub(super) size: u64,
}
