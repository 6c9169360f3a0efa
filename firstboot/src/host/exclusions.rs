// SPDX-License-Identifier: Apache-2.0
//! What a reset leaves alone: the paths of `--keep`.

use crate::host::STATE_DIR;

/// Most directories that a kept path may be below: a removal relies on that ([`super::remove`]).
pub(super) const DEEPEST: usize = 64;

/// Paths that stay, with everything below them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclusions(Vec<String>);

impl Exclusions {
    /// Reads what was given with `--keep`.
    ///
    /// # Errors
    /// A path that is none, or that a reset cannot leave alone; one line.
    pub fn parse<P: AsRef<str>>(paths: &[P]) -> Result<Self, String> {
        paths.iter().map(|path| one(path.as_ref())).collect::<Result<_, _>>().map(Exclusions)
    }

    /// These and those.
    #[must_use]
    pub fn with(&self, more: &Exclusions) -> Self {
        let mut paths = self.0.clone();
        paths.extend(more.0.iter().filter(|path| !self.0.contains(path)).cloned());
        Exclusions(paths)
    }

    /// As they were given.
    pub fn paths(&self) -> &[String] {
        &self.0
    }

    /// Whether this path stays.
    pub fn covers(&self, path: &str) -> bool {
        self.0.iter().any(|kept| is_within(path, kept))
    }
}

/// Whether `path` is `directory`, or is below it.
pub(crate) fn is_within(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn one(path: &str) -> Result<String, String> {
    let trimmed = path.trim_end_matches('/');
    if !path.starts_with('/') || trimmed.is_empty() {
        return Err(format!("keep {path}: expected an absolute path below /, as in /var/lib/data"));
    }
    if trimmed[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("keep {path}: expected a path without empty parts, . and .."));
    }
    if trimmed[1..].split('/').count() > DEEPEST {
        return Err(format!("keep {path}: expected a path of at most {DEEPEST} directories"));
    }
    if is_within(trimmed, STATE_DIR) || is_within(STATE_DIR, trimmed) {
        return Err(format!("keep {path}: firstboot's own record in {STATE_DIR} is what a reset ends with"));
    }
    Ok(trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_parts_of_a_path_count() {
        let keep = Exclusions::parse(&["/var/lib/containerd/", "/etc/hosts"]).unwrap();
        assert_eq!(keep.paths(), ["/var/lib/containerd", "/etc/hosts"]);
        for (path, covered) in [
            ("/var/lib/containerd", true),
            ("/var/lib/containerd/io.x/1", true),
            ("/var/lib/containerd-2", false),
            ("/var/lib", false),
            ("/etc/hosts", true),
            ("/etc/hosts.allow", false),
        ] {
            assert_eq!(keep.covers(path), covered, "{path}");
        }
        assert!(!Exclusions::default().covers("/"));
    }

    #[test]
    fn refused_by_exact_message() {
        let absolute = ": expected an absolute path below /, as in /var/lib/data";
        let parts = ": expected a path without empty parts, . and ..";
        let own = ": firstboot's own record in /var/lib/firstboot is what a reset ends with";
        for (path, why) in [
            ("", absolute),
            ("var/lib", absolute),
            ("/", absolute),
            ("//", absolute),
            ("/a//b", parts),
            ("/a/../b", parts),
            ("/a/.", parts),
            ("/var", own),
            ("/var/lib/firstboot", own),
            ("/var/lib/firstboot/journal", own),
        ] {
            assert_eq!(Exclusions::parse(&[path]), Err(format!("keep {path}{why}")));
        }
    }
}
