//! Giving privileges away (SBX-1, SBX-5). The order is forced: groups can only be dropped before `setgroups` is
//! denied, the bounding set only while there is CAP_SETPCAP, the filter only after `no_new_privs`.

use caps::CapSet;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::filter;
use crate::Wall;
use crate::error::{Error, Explain};
use crate::plan::Plan;

/// Leaves every supplementary group.
pub(super) fn drop_groups() -> Result<(), Error> {
    setgroups(&[]).step("leave the supplementary groups")
}

/// Becomes the user of the sandbox, without capabilities.
pub(super) fn become_unprivileged(plan: &Plan) -> Result<(), Error> {
    if plan.has(Wall::Capabilities) {
        clear(CapSet::Bounding, "bounding")?;
    }
    let (user, group) = (Uid::from_raw(plan.inside_id()), Gid::from_raw(plan.inside_id()));
    setresgid(group, group, group).step("become the group of the sandbox")?;
    setresuid(user, user, user).step("become the user of the sandbox")?;
    if plan.has(Wall::Capabilities) {
        clear(CapSet::Ambient, "ambient")?;
        clear(CapSet::Inheritable, "inheritable")?;
        clear(CapSet::Effective, "effective")?;
        clear(CapSet::Permitted, "permitted")?;
    }
    Ok(())
}

/// Makes it final.
pub(super) fn lock(plan: &Plan) -> Result<(), Error> {
    if !plan.has(Wall::NoNewPrivileges) {
        // Loading the filter sets it, so there is none either (SBX-22).
        return Ok(());
    }
    prctl::set_no_new_privs().step("set no_new_privs")?;
    if plan.has(Wall::Seccomp) {
        filter::load()?;
    }
    Ok(())
}

fn clear(set: CapSet, name: &'static str) -> Result<(), Error> {
    caps::clear(None, set).map_err(|source| Error::Capabilities { set: name, source })
}
