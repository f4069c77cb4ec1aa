//! The guest's half of the power-cut proof: every flow recorded write by write, with the kernel's vfat; and in states of the
//! disk that a cut could leave, the operation repeated by the real programs, or the machine really booted.
//!
//! - [`flow`] says what the flows are, [`bench`](mod@bench) makes the disks they start from;
//! - [`tiny`] is the guest: no firmware, no systemd, our programs and the kernel's vfat, 5 s a boot;
//! - [`record`] runs a flow in it and keeps what reaches the disk;
//! - [`work`] hands it states to work from, [`boots`] boots them with firmware and boot loader;
//! - [`proof`] puts these together; [`states`] reads those states;
//! - [`twins`] plants what a cut in the firmware's own rename could leave, [`room`](mod@room) fills `loader/entries`.

pub mod bench;
pub mod boots;
pub mod flow;
pub mod proof;
pub mod record;
pub mod room;
pub mod states;
pub mod tiny;
pub mod twins;
pub mod work;
