// SPDX-License-Identifier: Apache-2.0
//! The one place that flushes to a medium. Each call names its [`FlushSite`], so a test can leave out one flush at a time
//! and show that the loss is noticed (`flush/tests.rs`).
#![allow(clippy::disallowed_methods)] // the only calls of fsync(2), fdatasync(2) and syncfs(2)

#[cfg(test)]
#[path = "flush/test_medium.rs"]
pub(crate) mod medium;
#[cfg(test)]
pub(crate) mod tests;

use rustix::io::retry_on_intr;
use std::io::Result;
use std::os::fd::{AsFd, BorrowedFd};

macro_rules! sites {
    ($($(#[$doc:meta])* $site:ident,)*) => {
        /// A place in the code that flushes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum FlushSite { $($(#[$doc])* $site,)* }

        #[cfg(test)]
        impl FlushSite {
            /// All of them.
            pub(crate) const ALL: &[FlushSite] = &[$(FlushSite::$site,)*];
        }
    };
}

sites! {
    /// Directory above the state directory, which was created.
    StateDirectory,
    /// A record in the first copy of the journal.
    JournalRecord,
    /// A record that ends something, in the second copy.
    JournalCopyRecord,
    /// Directory of the journal's first copy, which was created.
    JournalCreated,
    /// Directory of its second copy, which was created.
    JournalCopyCreated,
    /// A copy of the journal that is written anew.
    JournalRewritten,
    /// Directory in which that copy took its place.
    JournalRenamed,
    /// Content of a file beside its place.
    FileWritten,
    /// Directory in which that file took its place.
    FileRenamed,
    /// A file that a person asked for.
    FileExported,
    /// Directory in which a symbolic link took its place.
    LinkRenamed,
    /// Directory in which a directory was created.
    DirectoryCreated,
    /// Directory from which firstboot removed a file of its own.
    FileRemoved,
    /// Directory in which a damaged file got another name.
    FileQuarantined,
    /// Directory from which a reset removed a file.
    EntryRemoved,
    /// A secret that was overwritten in place.
    SecretOverwritten,
    /// Directory in which a directory got another name.
    DirectoryMoved,
    /// Content of a directory that is copied from the image, beside its place.
    TreeCopied,
    /// Directory in which that directory took its place.
    TreeRenamed,
    /// Zeros in free space.
    FreeSpaceZeroed,
    /// All that kubeadm wrote, before the cluster counts as created.
    ClusterCreated,
    /// Certificates that kubeadm made, before it makes this device a member of etcd.
    ControlPlaneKeys,
    /// What kubeadm writes while it does: etcd counts this device as soon as it is in step.
    EtcdJoins,
    /// All that kubeadm wrote, before the node counts as one more control plane.
    ControlPlaneJoined,
    /// Everything, before the copies of replaced files are removed.
    ResetRestored,
    /// Everything, before the free space is zeroed.
    ResetErase,
    /// Everything, before the journal of a reset is replaced.
    ResetJournal,
    /// A change of the boot partition.
    BootChanged,
    /// Zeros in its free clusters.
    BootZeroed,
    /// Zeros where a secret was left on it.
    BootErased,
    /// What others wrote to it, before it is searched.
    BootScanned,
}

/// Flushes content and attributes of a file.
pub(crate) fn file(site: FlushSite, file: impl AsFd) -> Result<()> {
    flush(site, file.as_fd(), |fd| rustix::fs::fsync(fd))
}

/// Flushes content and length of a file.
pub(crate) fn data(site: FlushSite, file: impl AsFd) -> Result<()> {
    flush(site, file.as_fd(), |fd| rustix::fs::fdatasync(fd))
}

/// Flushes the names in a directory.
pub(crate) fn directory(site: FlushSite, directory: impl AsFd) -> Result<()> {
    flush(site, directory.as_fd(), |fd| rustix::fs::fsync(fd))
}

/// Flushes the whole file system of a file or directory.
pub(crate) fn file_system(site: FlushSite, any: impl AsFd) -> Result<()> {
    #[cfg(test)]
    if medium::file_system_flushed(site) {
        return Ok(());
    }
    flush(site, any.as_fd(), |fd| rustix::fs::syncfs(fd))
}

#[cfg_attr(not(test), allow(unused_variables))] // a device has no use for the site
fn flush(site: FlushSite, fd: BorrowedFd<'_>, call: fn(BorrowedFd<'_>) -> rustix::io::Result<()>) -> Result<()> {
    #[cfg(test)]
    if medium::flushed(site, fd) {
        return Ok(());
    }
    Ok(retry_on_intr(|| call(fd))?)
}
