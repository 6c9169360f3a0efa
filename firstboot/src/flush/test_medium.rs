// SPDX-License-Identifier: Apache-2.0
//! What a medium may hold after a power cut, derived from the flushes.
//!
//! The model is POSIX without the favours of a file system: a name that changed in a directory may be old or new until
//! the directory is flushed, each by itself, also out of order; only the two names of one rename go together. Content may
//! be old, new, cut short, of zeros or mixed by sectors until the file is flushed. A file that was never flushed may be empty.
//!
//! The recorder compares the tree below a root with what the flushes have made durable, so no write has to be announced.

use super::FlushSite;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const SECTOR: usize = 512;
/// How many states at most hold one name as it was, and how many are random.
const SINGLE: usize = 6;
const RANDOM: u64 = 4;

/// What is at a path after a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    File(Rc<[u8]>),
    Link(PathBuf),
}

/// What is left after a power cut: path on the device, and what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State(pub(crate) BTreeMap<String, Entry>);

impl State {
    /// Content of a file.
    pub(crate) fn file(&self, path: &str) -> Option<&[u8]> {
        match self.0.get(path)? {
            Entry::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Writes the directories and files below a path into `root`.
    pub(crate) fn write(&self, root: &Path, below: &str) {
        for (path, entry) in self.0.iter().filter(|(path, _)| path.starts_with(below)) {
            let to = root.join(&path[1..]);
            match entry {
                Entry::Directory => fs::create_dir_all(to).unwrap(),
                Entry::File(bytes) => {
                    fs::create_dir_all(to.parent().unwrap()).unwrap();
                    fs::write(to, bytes).unwrap();
                }
                Entry::Link(_) => {}
            }
        }
    }
}

/// What must hold in each state.
type Invariant = Rc<dyn Fn(&State) -> Result<(), String>>;

#[derive(Debug, Clone)]
enum Node {
    Directory(BTreeMap<String, u64>),
    File(Rc<[u8]>),
    Link(PathBuf),
}

impl Node {
    /// As long as nothing of it is flushed.
    fn fresh(&self) -> Node {
        match self {
            Node::Directory(_) => Node::Directory(BTreeMap::new()),
            Node::File(_) => Node::File(Rc::from([])),
            Node::Link(_) => self.clone(),
        }
    }
}

/// Whether a name in a directory (inode and path) is new.
type Names<'a> = &'a dyn Fn(u64, &str, &str) -> bool;
/// By inode.
type Nodes = BTreeMap<u64, Node>;

struct Medium {
    root: PathBuf,
    durable: Nodes,
    /// An inode that is open is not used again.
    pins: BTreeMap<u64, File>,
    without: Option<FlushSite>,
    always: Option<Invariant>,
    outcome: Outcome,
}

/// What a recording found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The first state in which something did not hold.
    pub(crate) failed: Option<String>,
    /// States checked.
    pub(crate) states: usize,
    /// Flushes that were asked for.
    pub(crate) sites: BTreeSet<FlushSite>,
}

thread_local! {
    static MEDIUM: RefCell<Option<Medium>> = const { RefCell::new(None) };
}

/// Runs `work` in a tree that is flushed now, and leaves out the flush `without`.
pub(crate) fn record(root: &Path, without: Option<FlushSite>, work: impl FnOnce()) -> Outcome {
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            MEDIUM.with(|medium| medium.take());
        }
    }
    let _clear = Clear;
    let mut medium = Medium {
        root: root.to_owned(),
        durable: Nodes::new(),
        pins: BTreeMap::new(),
        without,
        always: None,
        outcome: Outcome::default(),
    };
    medium.durable = medium.live();
    MEDIUM.with(|slot| slot.replace(Some(medium)));
    work();
    MEDIUM.with(|slot| slot.take()).unwrap().outcome
}

/// From here on this must hold at each cut.
pub(crate) fn always(holds: impl Fn(&State) -> Result<(), String> + 'static) {
    with(|medium| medium.always = Some(Rc::new(holds)));
}

/// The power may go here.
pub(crate) fn cut(moment: &str) {
    if let Some(holds) = with(|medium| medium.always.clone()).flatten() {
        check(moment, &*holds);
    }
}

/// Here this must hold, whether or not the power goes.
pub(crate) fn check(moment: &str, holds: &dyn Fn(&State) -> Result<(), String>) {
    for (how, state) in with(|medium| medium.states()).unwrap_or_default() {
        let failed = holds(&state).err();
        with(|medium| {
            medium.outcome.states += 1;
            if let Some(why) = failed {
                medium.outcome.failed.get_or_insert(format!("{moment}, {how}: {why}"));
            }
        });
    }
}

/// No block of the medium may hold this, not even one of a file that was removed.
pub(crate) fn check_blocks(moment: &str, needle: &[u8]) {
    with(|medium| {
        let holds = |node: &Node| matches!(node, Node::File(bytes) if memchr::memmem::find(bytes, needle).is_some());
        medium.outcome.states += 1;
        if medium.durable.values().any(holds) {
            medium.outcome.failed.get_or_insert(format!("{moment}: the medium still holds it"));
        }
    });
}

/// Notes the flush of a file or directory; whether a medium is recorded.
pub(super) fn flushed(site: FlushSite, fd: BorrowedFd<'_>) -> bool {
    cut("before a flush");
    with(|medium| {
        medium.outcome.sites.insert(site);
        if medium.without != Some(site) {
            let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd))).unwrap();
            // The file may have no name any more.
            let open = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
            let inode = fs::metadata(&open).unwrap().ino();
            let now = if path.is_dir() { medium.node(&path) } else { Node::File(fs::read(open).unwrap().into()) };
            medium.settle(inode, now);
        }
    })
    .is_some()
}

/// Notes the flush of the whole file system; whether a medium is recorded.
pub(super) fn file_system_flushed(site: FlushSite) -> bool {
    cut("before a flush");
    with(|medium| {
        medium.outcome.sites.insert(site);
        if medium.without != Some(site) {
            let live = medium.live();
            medium.durable.extend(live);
        }
    })
    .is_some()
}

fn with<T>(work: impl FnOnce(&mut Medium) -> T) -> Option<T> {
    MEDIUM.with(|medium| medium.borrow_mut().as_mut().map(work))
}

impl Medium {
    /// What a path holds now.
    fn node(&mut self, path: &Path) -> Node {
        let meta = path.symlink_metadata().unwrap();
        self.pins.entry(meta.ino()).or_insert_with(|| {
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap()
        });
        if meta.is_symlink() {
            return Node::Link(fs::read_link(path).unwrap());
        }
        if !meta.is_dir() {
            return Node::File(fs::read(path).unwrap().into());
        }
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
        // Not what the entry says: a mount has another inode.
        let inode = |entry: &fs::DirEntry| entry.path().symlink_metadata().unwrap().ino();
        Node::Directory(entries.map(|e| (e.file_name().to_string_lossy().into_owned(), inode(&e))).collect())
    }

    /// Everything below the root.
    fn live(&mut self) -> Nodes {
        let mut live = Nodes::new();
        let mut paths = vec![self.root.clone()];
        while let Some(path) = paths.pop() {
            let node = self.node(&path);
            if let Node::Directory(names) = &node {
                paths.extend(names.keys().map(|name| path.join(name)));
            }
            live.insert(path.symlink_metadata().unwrap().ino(), node);
        }
        live
    }

    /// This node is on the medium; what a directory names is there, but its content is not.
    fn settle(&mut self, inode: u64, now: Node) {
        if let Node::Directory(names) = &now {
            let live = self.live();
            for child in names.values() {
                if let Some(node) = live.get(child) {
                    self.durable.entry(*child).or_insert_with(|| node.fresh());
                }
            }
        }
        self.durable.insert(inode, now);
    }

    /// The worst states that a power cut may leave now, always the same ones for one value of `FIRSTBOOT_CUTS`.
    fn states(&mut self) -> Vec<(String, State)> {
        let live = self.live();
        let mut all: Vec<(String, State)> = Vec::new();
        let mut add = |how: String, names: Names<'_>, fill: &dyn Fn(&str) -> Fill| {
            let mut state = State::default();
            let inode = self.root.metadata().unwrap().ino();
            self.walk(&live, inode, "", names, fill, &mut state);
            if all.iter().all(|(_, known)| *known != state) {
                all.push((how, state));
            }
        };
        add("nothing that was not flushed".into(), &|_, _, _| false, &|_| Fill::Old);
        add("names alone".into(), &|_, _, _| true, &|_| Fill::Old);
        add("names, and content of zeros".into(), &|_, _, _| true, &|_| Fill::Zeros);
        add("names, and half of the content".into(), &|_, _, _| true, &|_| Fill::Half);
        add("everything".into(), &|_, _, _| true, &|_| Fill::New);
        add("content alone".into(), &|_, _, _| false, &|_| Fill::New);
        let choice: u64 = std::env::var("FIRSTBOOT_CUTS").map_or(1, |n| n.parse().expect("FIRSTBOOT_CUTS is a number"));
        let mut changed: Vec<(u64, String)> = self.changed(&live).into_iter().collect();
        let turn = usize::try_from(choice).unwrap_or(0) % changed.len().max(1);
        changed.rotate_left(turn);
        for key in changed.iter().take(SINGLE) {
            let old = |dir: u64, _: &str, name: &str| dir != key.0 || name != key.1;
            add(format!("everything but the name {}", key.1), &old, &|_| Fill::New);
        }
        for round in 0..RANDOM {
            let seed = mix(choice.wrapping_mul(RANDOM) + round);
            // By path: inodes are others in each run.
            let bits = |path: &str| mix(seed ^ u64::from(crc32fast::hash(path.as_bytes())));
            let fills = [Fill::Old, Fill::New, Fill::Half, Fill::Zeros, Fill::Sectors(seed)];
            let fill = |path: &str| fills[(bits(path) % 5) as usize];
            add(format!("random choice {round}"), &|_, dir, name| bits(&format!("{dir}//{name}")) & 1 == 1, &fill);
        }
        all
    }

    /// Names that differ from the medium, the two of a rename as one.
    fn changed(&self, live: &Nodes) -> BTreeSet<(u64, String)> {
        let mut all = BTreeSet::new();
        for (inode, node) in live {
            let (Node::Directory(new), Some(Node::Directory(old))) = (node, self.durable.get(inode)) else { continue };
            for name in old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name)) {
                all.insert((*inode, key(old, new, name)));
            }
        }
        all
    }

    fn walk(
        &self,
        live: &Nodes,
        inode: u64,
        path: &str,
        names: Names<'_>,
        fill: &dyn Fn(&str) -> Fill,
        state: &mut State,
    ) {
        let new = live.get(&inode);
        let fresh = new.map(Node::fresh);
        let Some(old) = self.durable.get(&inode).or(fresh.as_ref()) else { return };
        let entry = match (old, new.unwrap_or(old)) {
            (Node::Directory(old), Node::Directory(new)) => {
                let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                for name in all {
                    let there = if names(inode, path, &key(old, new, name)) { new.get(name) } else { old.get(name) };
                    if let Some(child) = there {
                        self.walk(live, *child, &format!("{path}/{name}"), names, fill, state);
                    }
                }
                Entry::Directory
            }
            (Node::File(old), Node::File(new)) => Entry::File(fill(path).content(old, new)),
            (Node::Link(to), _) => Entry::Link(to.clone()),
            _ => return,
        };
        state.0.insert(path.to_owned(), entry);
    }
}

/// By which name it is decided whether a name is old or new: that of the target, where it was renamed.
fn key(old: &BTreeMap<String, u64>, new: &BTreeMap<String, u64>, name: &str) -> String {
    let inode = old.get(name).filter(|_| !new.contains_key(name));
    let target = new.iter().find(|(target, to)| Some(*to) == inode && old.get(*target) != inode);
    target.map_or(name, |(target, _)| target).to_owned()
}

/// What of a file's new content is on the medium.
#[derive(Debug, Clone, Copy)]
enum Fill {
    Old,
    New,
    Half,
    Zeros,
    Sectors(u64),
}

impl Fill {
    fn content(self, old: &Rc<[u8]>, new: &Rc<[u8]>) -> Rc<[u8]> {
        if old == new {
            return old.clone();
        }
        // What was appended to may be torn, what was there before is not touched.
        let kept = if new.starts_with(old) { old.len() } else { 0 };
        match self {
            Fill::Old => old.clone(),
            Fill::New => new.clone(),
            Fill::Half => new[..kept + (new.len() - kept) / 2].into(),
            Fill::Zeros => [&new[..kept], &vec![0; new.len() - kept]].concat().into(),
            Fill::Sectors(seed) => {
                let mut bytes = new.to_vec();
                for (n, sector) in bytes.chunks_mut(SECTOR).enumerate().filter(|(n, _)| mix(seed ^ *n as u64) & 1 == 0)
                {
                    let before = old.get(n * SECTOR..).unwrap_or_default();
                    let length = sector.len().min(before.len());
                    sector[..length].copy_from_slice(&before[..length]);
                    sector[length..].fill(0);
                }
                bytes.into()
            }
        }
    }
}

/// Random bits of a number (splitmix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
