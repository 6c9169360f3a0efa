// SPDX-License-Identifier: Apache-2.0
//! Tests that need mounts or interfaces of their own start themselves again in namespaces (unshare(1)), and change nothing
//! of the machine that they run on.

#[path = "../../tests/skip.rs"]
pub(crate) mod skip;

use std::process::Command;

const INSIDE: &str = "FIRSTBOOT_TEST_INSIDE";

/// Whether this is the test that runs in the namespaces. If not, it has run there, and this one is to end; or `tools` or
/// the kernel's leave are missing, which is said, and in CI is a failure.
pub(crate) fn inside(test: &str, kinds: &[&str], tools: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let start = || {
        let mut command = Command::new("unshare");
        command.arg("--map-root-user").args(kinds);
        command
    };
    // Some programs live where only an administrator's PATH leads.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let here = |tool: &&&str| std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    let missing = tools.iter().find(|tool| !here(tool)).map(|tool| format!("{tool} is not installed"));
    let refused = || !start().arg("true").output().is_ok_and(|done| done.status.success());
    if let Some(why) = missing.or_else(|| refused().then(|| "no namespaces can be made".to_owned())) {
        skip::skip_unless_ci(&why);
        return false;
    }
    let mut again = start();
    again.arg(std::env::current_exe().unwrap()).args(["--exact", test]).env(INSIDE, "1").env("PATH", path);
    let done = again.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    false
}
