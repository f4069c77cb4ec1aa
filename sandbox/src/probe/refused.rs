//! Calls that the filter refuses (SBX-5). A filter of the unit that the sandbox runs in, or a sysctl, refuses some
//! calls too. So the ones tried here are, besides `unshare`, made so that they fail for an unprivileged process in
//! another way, or succeed, where nothing refuses them; and they are of several kinds: no unit forbids just these.
//! Only what has a safe wrapper is tried (SBX-24).

use std::fs::File;

use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::process::PidfdGetfdFlags;

use super::process::field_is;
use super::{Found, helper};

/// No process has it: the kernel's greatest is 2^22.
const NOBODY: Pid = Pid::from_raw(i32::MAX);

pub(super) fn seccomp() -> Found {
    field_is("Seccomp", "2")?;
    let file = File::open("/proc/self/status").map_err(|e| format!("cannot open /proc/self/status: {e}"))?;
    let mut byte = [0];
    let remote = [RemoteIoVec { base: 0, len: 1 }];
    let results = [
        ("unshare of a user namespace", errno(helper::unshare_in_child()?)),
        // Otherwise EINVAL: this is no namespace.
        ("setns", setns(&file, CloneFlags::empty())),
        // Otherwise ESRCH, both.
        ("ptrace", ptrace::attach(NOBODY)),
        ("process_vm_readv", process_vm_readv(NOBODY, &mut [std::io::IoSliceMut::new(&mut byte)], &remote).map(drop)),
        // Otherwise EBADF: this is no process.
        ("pidfd_getfd", pidfd_getfd(&file)),
        // Otherwise there is a keyring, or none yet (ENOKEY).
        ("keyctl", keyctl()),
    ];
    for (call, result) in &results {
        match result {
            Err(Errno::EPERM) => {}
            Err(errno) => return Err(format!("{call} fails with {errno}, expected EPERM")),
            Ok(()) => return Err(format!("{call} succeeds, expected EPERM")),
        }
    }
    let calls = results.map(|(call, _)| call).join(", ");
    Ok(format!("a filter is loaded, and these fail with EPERM: {calls}"))
}

fn errno(code: i32) -> nix::Result<()> {
    if code == 0 { Ok(()) } else { Err(Errno::from_raw(code)) }
}

fn pidfd_getfd(file: &File) -> nix::Result<()> {
    let result = rustix::process::pidfd_getfd(file, 0, PidfdGetfdFlags::empty());
    result.map(drop).map_err(|e| Errno::from_raw(e.raw_os_error()))
}

fn keyctl() -> nix::Result<()> {
    match KeyRing::from_special_id(KeyRingIdentifier::Session, false) {
        Ok(_) => Ok(()),
        Err(KeyError::PermissionDenied) => Err(Errno::EPERM),
        Err(_) => Err(Errno::ENOKEY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-12, `seccomp`: where nothing refuses them, these do not fail with EPERM, not even for root.
    #[test]
    fn what_is_tried_tells_a_filter_from_none() {
        let file = File::open("/proc/self/status").unwrap();
        assert_eq!(setns(&file, CloneFlags::empty()), Err(Errno::EINVAL));
        assert_eq!(ptrace::attach(NOBODY), Err(Errno::ESRCH));
        assert_eq!(pidfd_getfd(&file), Err(Errno::EBADF));
        assert_ne!(keyctl(), Err(Errno::EPERM));
    }
}
