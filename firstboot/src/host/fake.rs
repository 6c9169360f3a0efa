// SPDX-License-Identifier: Apache-2.0
//! A scripted machine for tests that need no kernel of their own: files are real (below a temporary root), commands
//! are recorded and answered from a table, time passes only during a wait.

use super::{Field, RETRY, System};
use anyhow::{Context, Result, bail};
use std::cell::{Cell, RefCell};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

type Answer = Box<dyn Fn(&[&str]) -> Option<Result<String>>>;
type Before = Box<dyn Fn(&str) -> Result<()>>;
type Serve = Box<dyn Fn(UnixStream)>;
type Fed = Box<dyn Fn(&[&str], &mut dyn Read) -> Result<()>>;

/// What the scripted machine saw; shared with the test that made it.
#[derive(Default)]
pub struct Recorded {
    /// Commands, words joined by blanks.
    pub commands: RefCell<Vec<String>>,
    /// Lines said on the console.
    pub lines: RefCell<Vec<String>>,
    /// Fields of each of those lines in the log, as `NAME=value`, joined by blanks.
    pub fields: RefCell<Vec<String>>,
    /// Kernel settings, as `path=value`.
    pub kernel: RefCell<Vec<String>>,
    /// Effects that may still happen before the power goes; `None`: it stays.
    pub fuse: Cell<Option<u32>>,
    /// The wall clock, once set.
    pub clock: Cell<Option<SystemTime>>,
    waited: Cell<Duration>,
}

impl Recorded {
    /// How long it has waited.
    pub fn waited(&self) -> Duration {
        self.waited.get()
    }
}

/// The scripted machine.
pub struct Fake {
    seen: Rc<Recorded>,
    answer: Answer,
    before: Before,
    fed: Fed,
    sockets: PathBuf,
    kernel: Option<PathBuf>,
    served: Option<(&'static str, Serve)>,
    patient: bool,
    retries: Cell<u32>,
}

impl Fake {
    /// A machine on which every command succeeds silently, and what it sees.
    pub fn new() -> (Self, Rc<Recorded>) {
        let seen = Rc::new(Recorded::default());
        let fake = Fake {
            seen: seen.clone(),
            answer: Box::new(|_| None),
            before: Box::new(|_| Ok(())),
            fed: Box::new(|_, input| std::io::copy(input, &mut std::io::sink()).map(drop).map_err(Into::into)),
            sockets: PathBuf::from("/"),
            kernel: None,
            served: None,
            patient: false,
            retries: Cell::new(0),
        };
        (fake, seen)
    }

    /// Answers commands for which `answer` gives something; a kernel setting is asked as `set PATH VALUE`, and what
    /// answers on a port as `get ADDRESS PATH`.
    pub fn answering(mut self, answer: impl Fn(&[&str]) -> Option<Result<String>> + 'static) -> Self {
        self.answer = Box::new(answer);
        self
    }

    /// Calls `before` before each effect, with what it is about; the effect fails with what `before` fails with.
    pub fn before(mut self, before: impl Fn(&str) -> Result<()> + 'static) -> Self {
        self.before = Box::new(before);
        self
    }

    /// Gives what commands are fed with to `fed`.
    pub fn feeding(mut self, fed: impl Fn(&[&str], &mut dyn Read) -> Result<()> + 'static) -> Self {
        self.fed = Box::new(fed);
        self
    }

    /// Sockets of other programs lie below this directory.
    pub fn sockets_below(mut self, directory: &Path) -> Self {
        self.sockets = directory.to_owned();
        self
    }

    /// Kernel settings are files below this directory too, as those of a real kernel can be read back.
    pub fn kernel_below(mut self, directory: &Path) -> Self {
        self.kernel = Some(directory.to_owned());
        self
    }

    /// Who listens on the socket at `path`: `serve` is called, in a thread of its own, for each connection.
    pub fn serving(mut self, path: &'static str, serve: impl Fn(UnixStream) + Clone + Send + 'static) -> Self {
        let serve = move |stream| {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        };
        self.served = Some((path, Box::new(serve)));
        self
    }

    /// Lets a run try again this often after a fault of this device; otherwise the first one ends the run.
    pub fn retrying(self, times: u32) -> Self {
        self.retries.set(times);
        self
    }

    /// Really waits when asked to: for runs against real servers.
    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }
}

impl System for Fake {
    fn run(&self, argv: &[&str], input: Option<&mut dyn Read>) -> Result<String> {
        self.seen.commands.borrow_mut().push(argv.join(" "));
        if let Some(input) = input {
            (self.fed)(argv, input)?;
        }
        (self.answer)(argv).unwrap_or_else(|| Ok(String::new()))
    }

    fn connect(&self, path: &str) -> Result<UnixStream> {
        let served = self.served.as_ref().filter(|(served, _)| *served == path);
        let (_, serve) = served.with_context(|| format!("connect to {path}: no program listens"))?;
        let (here, there) = UnixStream::pair()?;
        serve(there);
        Ok(here)
    }

    fn socket(&self, path: &str) -> String {
        self.sockets.join(path.trim_start_matches('/')).display().to_string()
    }

    fn answers(&self, at: SocketAddr, path: &str) -> bool {
        matches!((self.answer)(&["get", &at.to_string(), path]), Some(Ok(_)))
    }

    fn is_root(&self) -> bool {
        true
    }

    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> SystemTime {
        self.seen.clock.get().unwrap_or_else(SystemTime::now)
    }

    fn uptime(&self) -> Duration {
        self.seen.waited.get()
    }

    fn set_clock(&self, to: SystemTime) -> Result<()> {
        self.seen.clock.set(Some(to));
        Ok(())
    }

    #[allow(clippy::disallowed_methods)]
    fn sleep(&self, time: Duration) {
        self.seen.waited.set(self.seen.waited.get() + time);
        if self.patient {
            std::thread::sleep(time);
        }
    }

    #[allow(clippy::disallowed_methods)]
    fn set_kernel(&self, path: &str, value: &str) -> Result<()> {
        (self.answer)(&["set", path, value]).transpose()?;
        self.seen.kernel.borrow_mut().push(format!("{path}={value}"));
        if let Some(root) = &self.kernel {
            let file = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().unwrap_or(root))?;
            std::fs::write(&file, format!("{value}\n")).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }

    fn set_hostname(&self, name: &str) -> Result<()> {
        self.set_kernel("/proc/sys/kernel/hostname", name)
    }

    fn unmount(&self, path: &str, _remote: bool) -> Result<()> {
        self.run(&["unmount", path], None).map(drop)
    }

    fn zero_free_space(&self, directories: &[&str]) -> Result<u64> {
        self.run(&[&["zero"], directories].concat(), None).map(|_| 0)
    }

    fn random(&self) -> f64 {
        0.5
    }

    fn say_with(&self, line: &str, fields: &[Field<'_>]) {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.seen.fields.borrow_mut().push(fields.join(" "));
        self.seen.lines.borrow_mut().push(line.to_owned());
    }

    fn notify(&self, _state: &str) {}

    fn before_effect(&self, what: &str) -> Result<()> {
        if what == RETRY {
            let left = self.retries.get().checked_sub(1);
            self.retries.set(left.context("a run ends with its first fault of this device")?);
            return Ok(());
        }
        (self.before)(what)?;
        match self.seen.fuse.get() {
            None => Ok(()),
            Some(0) => bail!("power lost before {what}"),
            Some(n) => {
                self.seen.fuse.set(Some(n - 1));
                Ok(())
            }
        }
    }
}
