// SPDX-License-Identifier: Apache-2.0
//! The device binary: arguments in, exit code out.

use anyhow::Context;
use firstboot::boot_partition::locate;
use firstboot::check;
use firstboot::control_plane;
use firstboot::fault::{Code, Fault, OwnedBy, Owner};
use firstboot::host::exclusions::Exclusions;
use firstboot::host::{Host, Linux, System};
use firstboot::identity::device_ids;
use firstboot::image::ImageInfo;
use firstboot::node::recover::recover;
use firstboot::offline::ipam;
use firstboot::phases::PHASES;
use firstboot::run::facts::DeviceFacts;
use firstboot::run::{self, confirm, guard, status, stick};
use firstboot::seed::SeedRequest;
use firstboot::{audit, join_worker, offline, preflight, reset, seed, support};
use lexopt::prelude::*;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Joins this device to its Kubernetes cluster by the seed on its boot partition.

Usage:
  firstboot [--until PHASE]   run or resume; what firstboot.service does
  firstboot --reset [--yes] [--destroy-cluster] [--dry-run] [--keep PATH]...
                              back to where a seed can be dropped
  firstboot status [--json]   how far it is
  firstboot report [FILE]     a support archive without secrets; - is standard output
  firstboot check FILE        look through a seed file
  firstboot preflight [--json]
                              what has to hold before this device can be a node
  firstboot audit [--json]    whether this host is still as it was hardened; not 0 where a setting has drifted
  firstboot stick             look at the sticks that are plugged in; what firstboot-stick.service does
  firstboot clock             compare the clock with the cluster's; what firstboot-clock.timer does every day
  firstboot control-plane     renew what a control plane leaves on the boot partition for other devices
  firstboot api-server ADDRESS
                              whether the API server at this address of the device is alive; asked for the virtual address
  firstboot guard             what firstboot-guard.service does at every boot
  firstboot confirm           end the trial of a new version; what firstboot-confirm.service does at every boot
  firstboot reset             the reset itself, once it was asked for; what firstboot-reset.service does
  firstboot network           the join itself, without rights; what firstboot-network@.service does
  firstboot cache             a cache of the API server for this node; what firstboot-cache.service does
  firstboot version           print the version

Options:
  --until PHASE   stop after this phase: PHASES
  --yes           do not ask whether this device is to be reset
  --destroy-cluster
                  with --yes: also where this device is the last control plane of its cluster that answers
  --dry-run       print what a reset would do, and do nothing
  --keep PATH     a reset leaves this path alone, with everything below it; may be given more than once
  -h, --help      print this

Exit codes: 0 done; 2 usage; 10 the seed, 11 the image, 12 this device, 13 the cluster or the network has to change.
";

enum Command {
    Run { until: Option<String> },
    Status { json: bool },
    Report { file: Option<String> },
    Check { file: String },
    Preflight { json: bool },
    Audit { json: bool },
    Stick,
    Clock,
    ControlPlane,
    ApiServer { address: IpAddr },
    Confirm,
    Guard,
    Network,
    Cache { serve: bool, file: Option<String> },
    Reset { yes: bool, destroy: bool, dry_run: bool, keep: Exclusions },
    ResetWork,
    Print(String),
}

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|program| ipam::is_called(Path::new(&program))) {
        return match ipam::main() {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                eprintln!("{}: {error}", ipam::HOST_LOCAL);
                ExitCode::FAILURE
            }
        };
    }
    match parse(lexopt::Parser::from_env()) {
        Ok(command) => match execute(command) {
            Ok(code) => code,
            Err(fault) => {
                eprintln!("firstboot: {}: {fault}", fault.code);
                ExitCode::from(fault.owner().exit_code())
            }
        },
        Err(error) => {
            eprintln!("firstboot: {error}; see firstboot --help");
            ExitCode::from(2)
        }
    }
}

fn usage() -> String {
    let names: Vec<&str> = PHASES.iter().map(|p| p.name).collect();
    USAGE.replace("PHASES", &names.join(", "))
}

fn parse(mut args: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut command = Command::Run { until: None };
    let mut named = false;
    while let Some(arg) = args.next()? {
        match (arg, &mut command) {
            (Short('h') | Long("help"), _) => return Ok(Command::Print(usage())),
            (Long("until"), Command::Run { until }) => {
                let phase = args.value()?.string()?;
                if !PHASES.iter().any(|p| p.name == phase) {
                    return Err(format!("no phase is called {phase}").into());
                }
                *until = Some(phase);
            }
            (Long("reset"), Command::Run { until: None }) if !named => {
                command = Command::Reset { yes: false, destroy: false, dry_run: false, keep: Exclusions::default() };
                named = true;
            }
            (Long("yes"), Command::Reset { yes, .. }) => *yes = true,
            (Long("destroy-cluster"), Command::Reset { destroy, .. }) => *destroy = true,
            (Long("dry-run"), Command::Reset { dry_run, .. }) => *dry_run = true,
            (Long("keep"), Command::Reset { keep, .. }) => {
                *keep = keep.with(&Exclusions::parse(&[args.value()?.string()?])?);
            }
            (Long("json"), Command::Status { json } | Command::Preflight { json } | Command::Audit { json }) => {
                *json = true;
            }
            (Value(word), _) if !named => {
                named = true;
                command = match word.string()?.as_str() {
                    "status" => Command::Status { json: false },
                    "report" => Command::Report { file: None },
                    "check" => Command::Check { file: args.value()?.string()? },
                    "preflight" => Command::Preflight { json: false },
                    "audit" => Command::Audit { json: false },
                    "stick" => Command::Stick,
                    "clock" => Command::Clock,
                    "control-plane" => Command::ControlPlane,
                    "api-server" => {
                        let address = args.value()?.parse_with(|text| text.parse::<IpAddr>())?;
                        Command::ApiServer { address }
                    }
                    "confirm" => Command::Confirm,
                    "guard" => Command::Guard,
                    "network" => Command::Network,
                    "cache" => Command::Cache { serve: false, file: None },
                    "reset" => Command::ResetWork,
                    "version" => Command::Print(format!("firstboot {}\n", env!("CARGO_PKG_VERSION"))),
                    other => return Err(format!("no command is called {other}").into()),
                };
            }
            // Not in the help: how the process that holds the port starts the one that serves.
            (Long("serve"), Command::Cache { serve, .. }) => *serve = true,
            (Value(path), Command::Cache { file: file @ None, .. }) => *file = Some(path.string()?),
            (Value(path), Command::Report { file: file @ None }) => *file = Some(path.string()?),
            (other, _) => return Err(other.unexpected()),
        }
    }
    Ok(command)
}

const ROOT: &str = "/";

/// This device, for a command that only looks.
fn reading() -> Result<Host, Fault> {
    opened(Host::reading)
}

/// This device, for a command that changes it.
fn writing() -> Result<Host, Fault> {
    opened(Host::open)
}

fn opened(open: fn(&Path, Box<dyn System>) -> anyhow::Result<Host>) -> Result<Host, Fault> {
    let host = open(Path::new(ROOT), Box::new(Linux::new())).owned_by(Owner::Host)?;
    recover(&host).owned_by(Owner::Host)?;
    Ok(host)
}

/// Asks and resets. No answer is no.
fn reset(yes: bool, destroy: bool, dry_run: bool, keep: &Exclusions) -> Result<ExitCode, Fault> {
    if dry_run {
        print!("{}", reset::dry_run(&reading()?, keep)?);
        return Ok(ExitCode::SUCCESS);
    }
    let host = writing()?;
    // Where there may be other control planes, they are asked.
    let last = reset::ends_cluster(&host, control_plane::others::BUSY);
    let meant = yes && (destroy || !last);
    if let Some(question) = reset::question(&host, last).filter(|_| !meant) {
        let refused = |why: &str| {
            eprintln!("firstboot: reset this device: {why}");
            Ok(ExitCode::from(2))
        };
        if !std::io::stdin().is_terminal() {
            return match yes {
                true => {
                    refused("it is the last control plane of its cluster; --destroy-cluster says that this is meant")
                }
                false => refused("there is no terminal to ask on; --yes says that it is meant"),
            };
        }
        eprint!("{question}");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).context("read the answer").owned_by(Owner::Host)?;
        if !reset::is_yes(&line) {
            return refused("not confirmed, so nothing was done");
        }
    }
    match reset::by_command(&host, keep, destroy || last)? {
        reset::Done::Nothing => println!("nothing to reset: this device waits for its first seed"),
        reset::Done::Reset(left) => {
            println!("this device is reset and waits for a seed");
            left.iter().for_each(|left| println!("left for an administrator of the cluster: {left}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives the exit code: a reset that a person does not confirm is no fault.
fn execute(command: Command) -> Result<ExitCode, Fault> {
    let root = Path::new(ROOT);
    let done = match command {
        Command::Reset { yes, destroy, dry_run, keep } => return reset(yes, destroy, dry_run, &keep),
        Command::Run { until } => run::run(root, Box::new(Linux::new()), until.as_deref()),
        Command::Preflight { json } => show(&preflight::of_device(reading)?, json),
        Command::Audit { json } => show(&audit::of_device(&reading()?).owned_by(Owner::Host)?, json),
        Command::Stick => stick::plugged_in(&writing()?, &locate),
        Command::Clock => run::clock(&writing()?),
        Command::ControlPlane => run::control_plane(&writing()?),
        Command::ApiServer { address } => control_plane::virtual_ip::check(root, address),
        Command::Confirm => confirm::confirm(&writing()?),
        Command::Guard => guard::guard(&Host::open(root, Box::new(Linux::new())).owned_by(Owner::Host)?),
        Command::Network => join_worker::confined::run(),
        Command::Cache { serve, file } => {
            let file = file.as_deref().unwrap_or(offline::CONFIG);
            if serve { offline::serve(file) } else { offline::hold_port(file) }
        }
        Command::ResetWork => reset::work(root, Box::new(Linux::new()), &DeviceFacts),
        Command::Print(text) => {
            print!("{text}");
            Ok(())
        }
        Command::Check { file } => {
            let bytes = std::fs::read(&file).map_err(|e| Fault::new(Code::Seed, format!("read {file}: {e}")))?;
            if let SeedRequest::Join(seed) = seed::parse_request(&bytes)? {
                seed.check_end(Linux::new().now())?;
            }
            println!("{file}: a seed that this version of firstboot takes");
            Ok(())
        }
        Command::Status { json } => {
            print!("{}", status::shown(&status::look(&reading()?)?, json)?);
            Ok(())
        }
        Command::Report { file } => report(file),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Prints the results of checks and judges them.
fn show<R: check::Row>(rows: &[R], json: bool) -> Result<(), Fault> {
    print!("{}", check::render(rows, json).owned_by(Owner::Host)?);
    check::judge(rows)
}

fn report(file: Option<String>) -> Result<(), Fault> {
    let host = reading()?;
    // A seed that is still there is secret; without a boot partition there is none.
    let label = ImageInfo::read(&host).map(|image| image.boot_label).unwrap_or_default();
    let places = locate(&label).unwrap_or_default();
    let ids = device_ids(&host);
    let seed = places.iter().find_map(|p| p.partition.seed_for(&ids).ok()?.own());
    let found = status::look(&host);
    let status = |json| match &found {
        Ok(status) => Ok(status::shown(status, json)?),
        Err(fault) => Err(anyhow::anyhow!("{}: {fault}", fault.code)),
    };
    let archive = support::archive(
        &host,
        &[
            ("status", &|| status(false)),
            ("status.json", &|| status(true)),
            ("preflight", &|| check::render(&preflight::of_device(reading)?, false)),
            ("audit", &|| check::render(&audit::of_device(&host)?, false)),
        ],
        &support::collect_secrets(&host, seed.as_deref().map(Vec::as_slice)),
    )?;
    let file = file.unwrap_or_else(|| format!("{}.tar.gz", support::archive_name(&host)));
    if let Some(line) = support::write_archive(&host, &archive, &file)? {
        println!("{line}");
    }
    Ok(())
}
