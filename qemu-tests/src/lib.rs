//! The VM lab: builds a guest image from Debian packages, boots it in QEMU under OVMF or AAVMF with the real
//! systemd-boot, drives it, and keeps a transcript of every boot.
//!
//! The pieces, from the bottom up:
//!
//! - [`arch`] is what differs between the architectures of guests;
//! - [`setup`] makes sure the programs of the host are there (other members' tests call it too);
//! - [`workspace`] finds the build folder and builds the programs under test, with what [`cross`] finds for another
//!   architecture;
//! - [`guest`] makes the root file system, the initrd and the boot loaders;
//! - [`vm`] runs one guest and drives it through its [`agent`], [`transcript`] keeps what it printed;
//! - [`esp`] looks at its boot entries from outside, [`http`] serves it images;
//! - [`loaders`] runs boot loaders alone, over hundreds of small ESPs;
//! - [`lab`] puts these together into keys, images and a disk: what a scenario starts from,
//!   and [`machine`] is one that runs;
//! - [`pe`] makes small EFI programs for other members' tests;
//! - [`cuts`] is the guest's half of the power-cut proof.

pub mod agent;
pub mod arch;
pub mod board;
pub mod cross;
pub mod cuts;
pub mod esp;
pub mod guest;
pub mod http;
pub mod lab;
pub mod loaders;
pub mod machine;
pub mod pe;
pub mod secure_boot;
pub mod setup;
pub mod transcript;
pub mod vm;
pub mod workspace;
