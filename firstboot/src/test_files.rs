// SPDX-License-Identifier: Apache-2.0
//! Files that the kernel would provide, for tests.

/// Writes a file that the kernel would provide below a test's root.
pub(crate) fn put_for_tests(root: &std::path::Path, path: &str, text: &str) {
    let path = root.join(path);
    #[allow(clippy::disallowed_methods)] // a test's own root
    let put = std::fs::create_dir_all(path.parent().unwrap()).and_then(|()| std::fs::write(path, text));
    put.unwrap();
}
