// SPDX-License-Identifier: Apache-2.0
//! Each flush is needed: without it, a power cut leaves a state in which something that must hold does not.

#[path = "kubeadm_tests.rs"]
mod kubeadm;

use super::FlushSite::{self, *};
use super::medium::{self, Entry, Outcome, State, always, check, check_blocks, cut};
use crate::boot_partition::{BootPartition, formatted_for_tests};
use crate::host::fake::Fake;
use crate::host::kept::RECEIPT;
use crate::host::{Host, fill};
use crate::journal::facts::Fact;
use crate::journal::{Effect, JOURNAL, JOURNAL_COPY, Journal, Record};
use crate::reset::tests as reset;
use kubeadm::{etcd_joins, written_by_kubeadm};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const SECRET: &str = "0123456789abcdef";
const STATE: &str = "/var/lib/firstboot";

/// What to do below a root, and what has to hold meanwhile; `without` leaves out a flush.
type Scenario = fn(&Path, Option<FlushSite>) -> Outcome;

/// Where a missing flush is noticed. A new site does not compile before it has a row.
fn scenario(site: FlushSite) -> Scenario {
    match site {
        StateDirectory | JournalRecord | JournalCopyRecord | JournalCopyCreated => records,
        JournalCreated => first_copy_lost,
        JournalRewritten | JournalRenamed => journal_replaced,
        FileWritten | FileRenamed => files,
        FileExported => exported,
        LinkRenamed | DirectoryCreated | DirectoryMoved => names,
        FileRemoved | EntryRemoved | SecretOverwritten => removed,
        FileQuarantined => quarantined,
        TreeCopied | TreeRenamed => tree_copied,
        FreeSpaceZeroed => free_space,
        ResetRestored | ResetErase => reset::recorded,
        ClusterCreated => |root, without| written_by_kubeadm(root, without, ClusterCreated, Fact::ClusterCreated),
        ControlPlaneKeys => |root, without| written_by_kubeadm(root, without, ControlPlaneKeys, Fact::EtcdJoining),
        EtcdJoins => etcd_joins,
        ControlPlaneJoined => {
            |root, without| written_by_kubeadm(root, without, ControlPlaneJoined, Fact::ControlPlaneJoined)
        }
        ResetJournal => reset::recorded_with_a_failing_flush,
        BootChanged => boot_changed,
        BootZeroed => boot_zeroed,
        BootErased => boot_erased,
        BootScanned => boot_scanned,
    }
}

#[test]
fn each_flush_left_out_is_noticed() {
    let (mut states, mut unnoticed) = (0, Vec::new());
    for site in FlushSite::ALL {
        let run = |without| {
            let dir = scratch();
            let outcome = scenario(*site)(dir.path(), without);
            assert!(outcome.sites.contains(site), "{site:?}: its scenario does not come to it");
            outcome
        };
        let whole = run(None);
        assert_eq!(whole.failed, None, "{site:?}: no flush was left out");
        states += whole.states;
        match run(Some(*site)).failed {
            Some(why) => println!("without {site:?}: {why}"),
            None => unnoticed.push(site),
        }
    }
    println!("{} flushes, {states} states", FlushSite::ALL.len());
    assert_eq!(unnoticed, Vec::<&FlushSite>::new(), "left out, and nothing failed");
}

#[test]
fn nothing_else_flushes_and_each_site_is_one_place() {
    let root = PathBuf::from("src");
    let (mut directories, mut code) = (vec![root.clone()], String::new());
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let below = path.strip_prefix(&root).unwrap().display().to_string();
            let test = below.contains("tests") || below.starts_with("flush") || below.contains("test_");
            if path.is_dir() {
                directories.push(path);
            } else if !test {
                let text = fs::read_to_string(&path).unwrap();
                for call in ["sync_all", "sync_data", "fsync", "fdatasync", "syncfs", "sync_file_range", "fs::sync("] {
                    assert!(!text.contains(call), "{below}: {call}: use crate::flush");
                }
                code += &text;
            }
        }
    }
    for site in FlushSite::ALL {
        let name = format!("FlushSite::{site:?}");
        let uses =
            code.match_indices(&name).filter(|(at, _)| !code[at + name.len()..].starts_with(char::is_alphanumeric));
        assert_eq!(uses.count(), 1, "{name}: one place in the code");
    }
}

/// A directory in memory where there is one: thousands of states are written.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn host(root: &Path) -> Host {
    let fake = Fake::new().0.before(|what| {
        cut(what);
        Ok(())
    });
    Host::open(root, Box::new(fake)).unwrap()
}

fn put(root: &Path, path: &str, bytes: &[u8], mode: u32) {
    let path = root.join(&path[1..]);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn expect(holds: bool, why: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.into()) }
}

fn numbered(n: usize) -> Record {
    Record::Fact { name: Fact::Other(format!("fact-{n}")), value: "x".into() }
}

/// The records of a state, read with one of the journal's copies lost, or with both.
pub(crate) fn records_of(state: &State, lost: Option<&str>) -> Vec<Record> {
    let mut state = state.clone();
    if let Some(lost) = lost {
        state.0.remove(lost);
    }
    let dir = scratch();
    state.write(dir.path(), JOURNAL);
    Journal::read(dir.path()).records().to_vec()
}

/// Whether a state's journal holds these records.
fn holds(wanted: Vec<Record>, lost: Option<&'static str>) -> impl Fn(&State) -> Result<(), String> {
    move |state| {
        let found = records_of(state, lost);
        expect(found.starts_with(&wanted), format!("journal without {lost:?}: {} records", found.len()))
    }
}

/// A new device, and its first records.
fn records(root: &Path, without: Option<FlushSite>) -> Outcome {
    fs::create_dir_all(root.join("var/lib")).unwrap();
    let host = host(root);
    medium::record(root, without, || {
        let mut all = Vec::new();
        for n in 0..3 {
            all.push(numbered(n));
            host.record(numbered(n)).unwrap();
            check("after a record", &holds(all.clone(), None));
            always(holds(all.clone(), None));
        }
        all.push(Record::Sealed);
        host.record(Record::Sealed).unwrap();
        for lost in [JOURNAL, JOURNAL_COPY] {
            check("sealed", &holds(all.clone(), Some(lost)));
        }
    })
}

/// The first copy is new and the second is not.
fn first_copy_lost(root: &Path, without: Option<FlushSite>) -> Outcome {
    put(root, JOURNAL_COPY, b"", 0o600);
    let host = host(root);
    medium::record(root, without, || {
        host.record(numbered(0)).unwrap();
        check("after a record", &holds(vec![numbered(0)], None));
    })
}

/// A journal that another takes the place of.
fn journal_replaced(root: &Path, without: Option<FlushSite>) -> Outcome {
    fs::create_dir_all(root.join(&STATE[1..])).unwrap();
    let host = host(root);
    (0..3).for_each(|n| host.record(numbered(n)).unwrap());
    medium::record(root, without, || {
        let old: Vec<Record> = (0..3).map(numbered).collect();
        let new = vec![Record::Restarted, numbered(9)];
        let (before, after) = (old.clone(), new.clone());
        always(move |state| {
            let found = records_of(state, None);
            expect([&before, &after].contains(&&found), format!("neither journal, but {} records", found.len()))
        });
        host.renew_journal(&new[1..]).unwrap();
        for lost in [JOURNAL, JOURNAL_COPY] {
            check("replaced", &holds(new.clone(), Some(lost)));
        }
    })
}

/// A file that is written, and written again.
fn files(root: &Path, without: Option<FlushSite>) -> Outcome {
    put(root, "/etc/hosts", b"of the image", 0o644);
    let host = host(root);
    medium::record(root, without, || {
        for (n, path) in [(1, "/etc/new"), (2, "/etc/new"), (3, "/etc/hosts")] {
            let new = vec![n; 1500];
            let old = host.read(path).unwrap();
            let wanted = new.clone();
            always(move |state| {
                let found = state.file(path);
                expect(found == old.as_deref() || found == Some(&wanted), format!("{path} is neither old nor new"))
            });
            host.write(path, &new, 0o644).unwrap();
            check("written", &|state| expect(state.file(path) == Some(&new), format!("{path} is not the new one")));
        }
    })
}

/// A file for a person.
fn exported(root: &Path, without: Option<FlushSite>) -> Outcome {
    fs::create_dir_all(root.join("tmp")).unwrap();
    let host = host(root);
    medium::record(root, without, || {
        host.export("/tmp/report", &[7; 900], 0o600).unwrap();
        // Its directory is not flushed: it may be missing, and is not firstboot's.
        let whole = |state: &State| state.file("/tmp/report").is_none_or(|found| found == [7; 900]);
        check("exported", &|state| expect(whole(state), "a part of it"));
    })
}

/// Names that need no content.
fn names(root: &Path, without: Option<FlushSite>) -> Outcome {
    put(root, "/var/lib/runtime/db", b"db", 0o600);
    fs::create_dir_all(root.join("etc")).unwrap();
    let host = host(root);
    let there =
        |path: &'static str| move |state: &State| expect(state.0.contains_key(path), format!("{path} is missing"));
    medium::record(root, without, || {
        host.mkdir("/opt/a/b", 0o755).unwrap();
        check("created", &there("/opt/a/b"));
        host.symlink("/etc/link", "target").unwrap();
        check("linked", &|state| {
            expect(state.0.get("/etc/link") == Some(&Entry::Link("target".into())), "the link is missing")
        });
        always(|state| {
            let found = ["runtime", "runtime.old"].map(|name| state.file(&format!("/var/lib/{name}/db")));
            expect(found.iter().flatten().count() == 1, "not once there")
        });
        host.move_aside("/var/lib/runtime", "/var/lib/runtime.old").unwrap();
        check("moved", &there("/var/lib/runtime.old/db"));
    })
}

/// Files that are removed, one of them a key.
fn removed(root: &Path, without: Option<FlushSite>) -> Outcome {
    put(root, "/etc/one", b"1", 0o644);
    put(root, "/var/two", b"2", 0o644);
    put(root, "/var/key", SECRET.as_bytes(), 0o600);
    let host = host(root);
    let gone = |path: &'static str| move |state: &State| expect(!state.0.contains_key(path), format!("{path} is back"));
    medium::record(root, without, || {
        host.remove("/etc/one").unwrap();
        check("removed", &gone("/etc/one"));
        host.remove_entry("/var/two").unwrap();
        check("removed", &gone("/var/two"));
        host.remove_entry("/var/key").unwrap();
        check_blocks("removed", SECRET.as_bytes());
    })
}

/// A damaged file of which the copy is whole: what is left of it stays for the support archive.
fn quarantined(root: &Path, without: Option<FlushSite>) -> Outcome {
    fs::create_dir_all(root.join(&STATE[1..])).unwrap();
    let host = host(root);
    host.keep(RECEIPT, &[b'x'; 700]).unwrap();
    put(root, RECEIPT.path, b"damaged", RECEIPT.mode);
    medium::record(root, without, || {
        always(|state| {
            let left = state.0.values().any(|entry| matches!(entry, Entry::File(bytes) if **bytes == *b"damaged"));
            expect(left, "what was damaged is gone")
        });
        host.repair_kept().unwrap();
        cut("repaired");
        check("repaired", &|state| expect(state.file(RECEIPT.path) == Some(&[b'x'; 700]), "not repaired"));
    })
}

/// A directory of the image, which a program opens as soon as it is there.
fn tree_copied(root: &Path, without: Option<FlushSite>) -> Outcome {
    fs::create_dir_all(root.join("var/lib")).unwrap();
    put(root, "/usr/state/db", &[b'd'; 1500], 0o600);
    put(root, "/usr/state/blobs/one", b"blob", 0o444);
    let host = host(root);
    let whole = |state: &State| {
        state.file("/var/lib/runtime/db") == Some(&[b'd'; 1500])
            && state.file("/var/lib/runtime/blobs/one") == Some(b"blob")
    };
    medium::record(root, without, || {
        always(move |state| {
            expect(!state.0.contains_key("/var/lib/runtime") || whole(state), "a part of it is in its place")
        });
        assert!(host.copy_tree("/usr/state", "/var/lib/runtime").unwrap());
        check("copied", &|state| expect(whole(state), "it is not there"));
    })
}

/// Free space of a small disk.
fn free_space(root: &Path, without: Option<FlushSite>) -> Outcome {
    put(root, "/var/zeros", SECRET.as_bytes(), 0o600);
    let file = fs::OpenOptions::new().read(true).write(true).open(root.join("var/zeros")).unwrap();
    medium::record(root, without, || {
        let mut left = 2;
        let write = |zeros: &[u8]| {
            left -= 1;
            if left == 0 { Err(ErrorKind::StorageFull.into()) } else { file.write_at(zeros, 0) }
        };
        assert_eq!(fill(&file, write).unwrap(), 1 << 20);
        check_blocks("zeroed", SECRET.as_bytes());
    })
}

/// A boot partition in an image.
fn boot(root: &Path) -> BootPartition {
    let boot = formatted_for_tests(&root.join("boot.img"), 0, 5 << 20).unwrap();
    boot.write("other.txt", &[b'o'; 5000]).unwrap();
    boot.write("seed.toml", format!("token = \"abcdef.{SECRET}\"").repeat(200).as_bytes()).unwrap();
    boot
}

/// No state of the image holds the secret.
fn none_left(moment: &str) {
    let needle = memchr::memmem::Finder::new(SECRET);
    check(moment, &|state| expect(needle.find(state.file("/boot.img").unwrap()).is_none(), "the token is back"));
}

fn boot_changed(root: &Path, without: Option<FlushSite>) -> Outcome {
    let boot = boot(root);
    medium::record(root, without, || {
        boot.overwrite("seed.toml", SECRET.as_bytes(), b"################").unwrap();
        none_left("overwritten");
        boot.destroy("seed.toml").unwrap();
        none_left("destroyed");
    })
}

fn boot_zeroed(root: &Path, without: Option<FlushSite>) -> Outcome {
    let boot = boot(root);
    boot.remove("seed.toml").unwrap();
    medium::record(root, without, || {
        assert!(boot.zero_free_clusters().unwrap().zeroed > 0);
        none_left("zeroed");
    })
}

fn boot_erased(root: &Path, without: Option<FlushSite>) -> Outcome {
    let boot = boot(root);
    boot.remove("seed.toml").unwrap();
    let places: Vec<(u64, usize)> = boot.scan(SECRET).unwrap().into_iter().map(|at| (at, SECRET.len())).collect();
    medium::record(root, without, || {
        boot.erase(&places).unwrap();
        none_left("erased");
    })
}

/// What a search has not found must not be on the medium.
fn boot_scanned(root: &Path, without: Option<FlushSite>) -> Outcome {
    let boot = boot(root);
    let places = boot.scan(SECRET).unwrap();
    let image = fs::OpenOptions::new().write(true).open(boot.path()).unwrap();
    medium::record(root, without, || {
        places.iter().for_each(|at| image.write_all_at(&[0; SECRET.len()], *at).unwrap());
        assert_eq!(boot.scan(SECRET).unwrap(), Vec::<u64>::new());
        none_left("searched");
    })
}

#[test]
fn the_model_loses_what_was_not_flushed_and_nothing_else() {
    let dir = scratch();
    let root = dir.path();
    put(root, "/a/old", b"old", 0o600);
    let seen = std::rc::Rc::new(std::cell::RefCell::new(BTreeSet::new()));
    let outcome = medium::record(root, None, || {
        put(root, "/a/new", b"1234", 0o600);
        fs::rename(root.join("a/old"), root.join("a/moved")).unwrap();
        let seen = seen.clone();
        check("", &move |state| {
            let text =
                |name| state.file(&format!("/a/{name}")).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            seen.borrow_mut().insert([text("old"), text("moved"), text("new")]);
            Ok(())
        });
    });
    let seen = seen.borrow();
    assert_eq!(outcome.states, seen.len());
    let some = |text: &str| Some(text.to_owned());
    for new in [None, some(""), some("12"), some("\0\0\0\0"), some("1234")] {
        assert!(seen.iter().any(|state| state[2] == new), "{new:?}");
    }
    // The two names of a rename go together.
    let either = [[some("old"), None], [None, some("old")]];
    assert!(seen.iter().all(|state| either.contains(&[state[0].clone(), state[1].clone()])), "{seen:?}");
    assert!(either.iter().all(|pair| seen.iter().any(|state| state[..2] == pair[..])));
}

#[test]
fn each_kind_of_flush_calls_the_kernel() {
    let error = |done: std::io::Result<()>| done.err().and_then(|error| error.raw_os_error());
    let (pipe, _other) = std::io::pipe().unwrap();
    // A pipe cannot be flushed, but the file system of all pipes can (fsync(2), syncfs(2)).
    for flush in [super::file, super::data, super::directory] {
        assert_eq!(error(flush(FileWritten, &pipe)), Some(libc::EINVAL));
    }
    super::file_system(ResetErase, &pipe).unwrap();
    let path = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/").unwrap();
    assert_eq!(error(super::file_system(ResetErase, &path)), Some(libc::EBADF));
}

/// A card that was stolen: no block of it has a secret that firstboot has replaced or removed.
fn s19(secrets: &[(&str, u32)], work: impl FnOnce(&Host)) -> Option<String> {
    let dir = scratch();
    for (path, mode) in secrets {
        put(dir.path(), path, SECRET.as_bytes(), *mode);
    }
    let host = host(dir.path());
    let outcome = medium::record(dir.path(), None, || {
        work(&host);
        check_blocks("afterwards", SECRET.as_bytes());
    });
    outcome.failed
}

#[test]
fn s19_a_secret_that_is_removed_is_overwritten() {
    let key = "/var/lib/firstboot/join.key";
    assert_eq!(s19(&[(key, 0o600)], |host| host.remove(key).unwrap()), None);
    // A link takes its place.
    assert_eq!(s19(&[(key, 0o400)], |host| host.symlink(key, "elsewhere").unwrap()), None);
}

#[test]
fn s19_a_secret_that_is_replaced_is_overwritten() {
    let file = "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf";
    let again = |host: &Host| {
        host.record(Record::Effect(Effect::Created { path: file.into() })).unwrap();
        host.write(file, b"network={}", 0o600).unwrap();
    };
    assert_eq!(s19(&[(file, 0o600)], again), None);
    // What a power cut left beside the place of a file.
    let left = "/etc/wpa_supplicant/.wpa_supplicant-wlan0.conf.firstboot";
    assert_eq!(s19(&[(left, 0o600)], again), None);
    let keep = |host: &Host| host.write_copy("/var/lib/firstboot/credential.copy", b"the next key", 0o600).unwrap();
    assert_eq!(s19(&[("/var/lib/firstboot/credential.copy", 0o600)], keep), None);
}

/// A key that a person has linked elsewhere, and a file that everyone may read.
#[test]
fn s19_what_others_use_is_not_overwritten() {
    let dir = scratch();
    for (path, mode) in [("/var/key", 0o600), ("/etc/public", 0o644)] {
        put(dir.path(), path, SECRET.as_bytes(), mode);
        fs::hard_link(dir.path().join(&path[1..]), dir.path().join(&format!("{path}.other")[1..])).unwrap();
    }
    let host = host(dir.path());
    host.remove("/var/key").unwrap();
    host.write("/etc/public", b"new", 0o644).unwrap();
    for other in ["var/key.other", "etc/public.other"] {
        assert_eq!(fs::read(dir.path().join(other)).unwrap(), SECRET.as_bytes(), "{other}");
    }
    // A program that has it open goes on with what it had.
    put(dir.path(), "/etc/open", b"as before", 0o644);
    let mut open = fs::File::open(dir.path().join("etc/open")).unwrap();
    host.remove("/etc/open").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut open, &mut text).unwrap();
    assert_eq!(text, "as before");
}
