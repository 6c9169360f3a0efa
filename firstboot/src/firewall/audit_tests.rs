// SPDX-License-Identifier: Apache-2.0
//! What the audit finds in the answers of nft 1.0.6 and 1.1.3 to `nft -j list table inet firstboot`.

use super::*;
