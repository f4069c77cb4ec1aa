//! Creating a virtual machine (SBX-7). The one place that needs `unsafe` (SBX-24).
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Found;

nix::ioctl_write_int_bad!(
    /// `KVM_CREATE_VM` of `linux/kvm.h`: `_IO(0xAE, 0x01)`. The argument is the machine's type; 0 is the default.
    kvm_create_vm,
    nix::request_code_none!(0xAE, 0x01)
);

pub(super) fn create_machine() -> Found {
    let device = File::options().read(true).write(true).open("/dev/kvm");
    let device = device.map_err(|e| format!("cannot open /dev/kvm: {e}"))?;
    // SAFETY: KVM_CREATE_VM takes a plain number and touches no memory of ours; the descriptor is open.
    let machine = unsafe { kvm_create_vm(device.as_raw_fd(), 0) };
    let machine = machine.map_err(|e| format!("KVM_CREATE_VM: {e}, expected a machine"))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(machine) });
    Ok("a machine was created".to_owned())
}
