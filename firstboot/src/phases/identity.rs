// SPDX-License-Identifier: Apache-2.0
//! Who this device is ([`crate::identity`]): node name, host name, machine-id.

use super::context::PhaseContext;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::identity::{ensure_machine_id, hosts_hold, install, known_name, machine_id, name_by_hardware, random_name};
use crate::journal::Record;
use crate::journal::facts::Fact;
use crate::paths::HOSTNAME;

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let Some(name) = cx.host.journal().fact(Fact::Node).map(str::to_owned) else { return Ok(false) };
    let same = wanted_name(cx, Some(&name))? == name
        && cx.host.read_text(HOSTNAME).owned_by(Owner::Host)?.as_deref() == Some(&name)
        && hosts_hold(&cx.host, &name).owned_by(Owner::Host)?
        && machine_id(&cx.host).owned_by(Owner::Host)?.is_some();
    Ok(same)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let known = known_name(&cx.host);
    // First: a name may be made out of it.
    ensure_machine_id(&cx.host).owned_by(Owner::Host)?;
    let name = wanted_name(cx, known.as_deref())?;
    install(&cx.host, &name).owned_by(Owner::Host)?;
    if cx.host.journal().fact(Fact::Node) != Some(&name) {
        cx.host.record(Record::Fact { name: Fact::Node, value: name }).owned_by(Owner::Host)?;
    }
    Ok(())
}

/// The name that this device should have; `known` is the one it was given before.
fn wanted_name(cx: &PhaseContext, known: Option<&str>) -> Result<String, Fault> {
    // Its certificate is for this name. An interface that was found later, or first, makes it no other node.
    let again = cx.host.journal().was_sealed() && cx.seed.node.name.is_none();
    if let Some(known) = known.filter(|_| cx.has_joined_by_seed() || again) {
        return Ok(known.to_owned());
    }
    match name_by_hardware(&cx.host, cx.seed.node.name.as_ref())? {
        Some(name) => Ok(name),
        None => random_name(&cx.host, &cx.image, known).owned_by(Owner::Host),
    }
}
