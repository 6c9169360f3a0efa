// SPDX-License-Identifier: Apache-2.0
//! Enters the sandbox and tries what it must not be able to do; `tests/sandbox.rs` reads the answers. It is in no image.
//!
//! Prints one line per attempt: its name, and `done` or the number of the error.

#![allow(clippy::disallowed_methods)]

use anyhow::Context;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketType, socket, sockopt};
use rustix::process::Signal;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() -> anyhow::Result<()> {
    let arg = |n| std::env::args().nth(n).unwrap_or_default();
    // The second server is one that this process is not given.
    let (server, outside, other) = (arg(1), arg(2), arg(3));
    // Opened before: what is open stays usable, as the join worker's connection does.
    let mut status = File::open("/proc/self/status")?;
    let parent = rustix::process::getppid().context("find the parent process")?;
    let port = |server: &str| server.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
    println!("missing {:?}", firstboot::sandbox::PrivateMemory::new()?.enter(&[port(&server)])?);
    let io = |result: std::io::Result<()>| match result {
        Ok(()) => "done".to_owned(),
        Err(e) => e.raw_os_error().map_or(e.to_string(), |n| n.to_string()),
    };
    let tell = |what: &str, result| println!("{what} {}", io(result));
    let open = |family, kind, protocol: Option<Protocol>| -> std::io::Result<()> {
        socket(family, kind, protocol).map(drop).map_err(|e: Errno| e.into())
    };
    tell("read-shadow", File::open("/etc/shadow").map(drop));
    tell("read-outside", File::open(&outside).map(drop));
    tell("raw-socket", open(AddressFamily::INET, SocketType::RAW, Some(rustix::net::ipproto::ICMP)));
    tell("packet-socket", open(AddressFamily::PACKET, SocketType::RAW, None));
    tell("ping-socket", open(AddressFamily::INET, SocketType::DGRAM, Some(rustix::net::ipproto::ICMP)));
    tell("local-socket", open(AddressFamily::UNIX, SocketType::STREAM, None));
    tell("shell", Command::new("/bin/sh").args(["-c", "true"]).status().map(drop));
    tell("exec", Err(Command::new("/bin/true").exec()));
    tell("create", OpenOptions::new().write(true).create(true).truncate(true).open(&outside).map(drop));
    tell("write-existing", OpenOptions::new().write(true).open(&outside).map(drop));
    tell("append", OpenOptions::new().append(true).open(&outside).map(drop));
    tell("remove", std::fs::remove_file(&outside));
    tell("link", std::os::unix::fs::symlink("/etc/shadow", format!("{outside}.link")));
    tell("kill-parent", rustix::process::kill_process(parent, Signal::CONT).map_err(Into::into));
    tell("other-port", TcpStream::connect(other).map(drop));
    let listen = || -> std::io::Result<()> { std::net::TcpListener::bind("127.0.0.1:0").map(drop) };
    tell("listen", listen());
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    // The first loads a module of the kernel.
    tell("option-congestion", sockopt::set_tcp_congestion(&stream, "bbr").map_err(Into::into));
    tell("option-buffer", sockopt::set_socket_recv_buffer_size(&stream, 1 << 20).map_err(Into::into));
    tell("option-broadcast", sockopt::set_socket_broadcast(&stream, true).map_err(Into::into));
    tell("option-nodelay", sockopt::set_tcp_nodelay(&stream, true).map_err(Into::into));
    tell("option-keepalive", sockopt::set_socket_keepalive(&stream, true).map_err(Into::into));
    // What it is for.
    let request = move || -> std::io::Result<()> {
        // Each address in turn: Debian's /etc/hosts has an IPv6 address for localhost, too.
        TcpStream::connect(server)?.write_all(b"hello")
    };
    tell("connect", std::thread::spawn(request).join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())));
    let mut text = String::new();
    status.read_to_string(&mut text)?;
    print!("{text}");
    println!("waiting");
    // Until the test has looked at this process from outside.
    std::io::stdin().read_to_string(&mut text)?;
    Ok(())
}
