// SPDX-License-Identifier: Apache-2.0
//! What a line of the journal says.

use super::facts::Fact;
use serde::{Deserialize, Serialize};

/// A change to the machine, recorded before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// A file or symbolic link that was not there before.
    Created {
        /// Absolute path on the device.
        path: String,
    },
    /// A file or link that was there before; what it was is kept under `backup`.
    Replaced {
        /// Absolute path on the device.
        path: String,
        /// Absolute path of the copy.
        backup: String,
    },
    /// A directory that was not there before.
    Directory {
        /// Absolute path on the device.
        path: String,
    },
    /// A directory that belongs to firstboot with everything in it.
    Tree {
        /// Absolute path on the device.
        path: String,
    },
    /// A systemd unit that was enabled by a link.
    Enabled {
        /// Unit name.
        unit: String,
        /// Absolute path of the link on the device.
        path: String,
    },
    /// A systemd unit that was started.
    Started {
        /// Unit name.
        unit: String,
    },
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// A run began.
    Begun {
        /// Version of firstboot.
        version: String,
        /// [`crate::seed::Seed`]'s digest: tells seeds apart, reveals nothing.
        seed: String,
        /// The kernel's boot id.
        boot: String,
    },
    /// A change about to be made.
    Effect(Effect),
    /// A phase whose check held after it was applied.
    Done {
        /// Name of the phase.
        phase: String,
        /// How long it took, seconds.
        seconds: f64,
    },
    /// A fact that a phase found and must not find differently later, such as the node's name.
    Fact {
        /// Which fact.
        name: Fact,
        /// Its value: [`super::facts`] has its form.
        value: String,
    },
    /// This journal replaced another one: records before this one are void, in whichever copy they still stand.
    Restarted,
    /// The node is Ready and the seed is gone.
    Sealed,
    /// This device is being reset: whatever else is on record, the reset goes on until the journal itself is replaced.
    Resetting {
        /// Paths that are left alone.
        keep: Vec<String>,
        /// Digest of the seed that asked for it; none when a person did.
        seed: Option<String>,
        /// Whether it was said that the cluster may end with this device.
        #[serde(default)]
        destroy: bool,
    },
}
