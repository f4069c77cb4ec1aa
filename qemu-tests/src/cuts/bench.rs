//! The disks that flows start from: small ones, made by the real programs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use power_cuts::rng::Rng;

use super::flow::{COUNTS_FIVE, Flow, Prepare, UNIFIED, flow};
use super::record::{self, Recording};
use super::room;
use super::twins;
use super::work::run_on;
use crate::arch::Arch;
use crate::esp::Esp;
use crate::guest::{self, Stub, loader_252, loader_257};
use crate::lab::{Keys, Lab};
use crate::setup::{self, run};
use crate::workspace;

/// What the images carry as kernel and initrd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payloads {
    /// A few kilobytes, which take no time to write, read and hash. The kernel has the head of one.
    Small,
    /// Debian's kernel, and an initrd that prints the command line: a state with these can be booted.
    Real,
}

/// A folder with keys and images, for the disks of all flows.
#[derive(Debug)]
pub struct Bench<'l> {
    lab: &'l Lab,
    payloads: Payloads,
    keys: Keys,
}

/// Kernel options of the images, besides their architecture's: what a boot that is looked at needs.
const OPTIONS: &str = "quiet panic=1";
/// The loader's own configuration.
pub const LOADER_CONF: &str = "loader/loader.conf";
const ROOT_LEN: usize = 256 << 10;

impl<'l> Bench<'l> {
    /// Makes the keys; images are made when they are needed.
    ///
    /// # Errors
    /// When `ralph-image` fails.
    pub fn new(lab: &'l Lab, payloads: Payloads) -> Result<Self> {
        let name = lab.path("release");
        run(image()?.args(["keygen", "--out"]).arg(&name))?;
        let keys = Keys { private: lab.path("release.pem"), public: lab.path("release.pub.pem") };
        Ok(Self { lab, payloads, keys })
    }

    /// What its machines are.
    pub fn arch(&self) -> Arch {
        self.lab.arch
    }

    fn update_disk(&self, disk: &Path, args: &[&str], files: &[&Path]) -> Result<()> {
        let mut update = Command::new(workspace::host_programs()?.update);
        run(update.arg("--disk").arg(disk).args(args).args(files)).map(drop)
    }

    /// Puts what the guest needs for `flow` into `dir`: the public key, and the image that is applied or the boot loader.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn lay_out(&self, flow: &Flow, dir: &Path) -> Result<()> {
        let put = |from: &Path, name: &str| {
            let to = dir.join(name);
            std::fs::copy(from, &to).map(drop).with_context(|| format!("cannot make {}", to.display()))
        };
        put(&self.keys.public, "release.pub.pem")?;
        if flow.updates_loader() {
            put(&loader_257(self.arch())?, "loader.efi")?;
        }
        if flow.applies == 0 { Ok(()) } else { put(&self.image(flow.applies)?, "image.zst") }
    }

    /// Which systemd-boot the disk has is nobody's business here but the firmware's.
    fn first_disk(&self) -> Result<PathBuf> {
        let path = self.lab.path("first.raw");
        if path.exists() {
            return Ok(path);
        }
        let esp = match self.payloads {
            Payloads::Small => "34M",
            // Room for two kernels; Debian's for Arm is not compressed.
            Payloads::Real => match self.arch() {
                Arch::X86_64 => "48M",
                Arch::Aarch64 => "88M",
            },
        };
        run(image()?
            .arg("disk")
            .arg("--image")
            .arg(self.image(1)?)
            .arg("--trust")
            .arg(&self.keys.public)
            .arg("--loader")
            .arg(guest::base(self.arch())?.loader)
            .args(["--slot-size", "1M", "--var-size", "1M", "--esp-size", esp, "--seed", "4"])
            .arg("-o")
            .arg(&path))?;
        Ok(path)
    }

    /// The image of version N.0.0.
    ///
    /// # Errors
    /// When a program fails.
    pub fn image(&self, version: u32) -> Result<PathBuf> {
        let path = self.lab.path(&format!("v{version}.zst"));
        if path.exists() {
            return Ok(path);
        }
        let dir = self.lab.machine(&format!("v{version}"))?;
        std::fs::write(dir.join("root"), noise(version, ROOT_LEN))?;
        let mut build = image()?;
        build.arg("build");
        if version >= UNIFIED {
            build.arg("--stub").arg(guest::stub(self.arch(), Stub::V257)?);
        }
        let (linux, initrd) = match self.payloads {
            // Any program does: nobody starts it.
            _ if version >= UNIFIED => {
                std::fs::write(dir.join("initrd"), noise(version + 100, 5_000))?;
                (loader_257(self.arch())?, dir.join("initrd"))
            }
            Payloads::Small => {
                std::fs::write(dir.join("linux"), small_kernel(self.arch(), version))?;
                std::fs::write(dir.join("initrd"), noise(version + 100, 5_000))?;
                (dir.join("linux"), dir.join("initrd"))
            }
            Payloads::Real => {
                let base = guest::base(self.arch())?;
                (base.linux, base.initrd_that_prints)
            }
        };
        run(build
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--linux")
            .arg(linux)
            .arg("--initrd")
            .arg(initrd)
            .args(["--os-id", "ralphos", "--arch", self.arch().name(), "--epoch", "1"])
            .args(["--version", &format!("{version}.0.0")])
            .args(["--cmdline", &format!("{OPTIONS} {}", self.arch().kernel_options())])
            .arg("--key")
            .arg(&self.keys.private)
            .arg("-o")
            .arg(&path))?;
        Ok(path)
    }

    /// Makes the disk that `flow` starts from, in `dir`: `base.raw`.
    ///
    /// # Errors
    /// When a program fails.
    pub fn base(&self, flow: &Flow, dir: &Path) -> Result<PathBuf> {
        let disk = dir.join("base.raw");
        copy(&self.first_disk()?, &disk)?;
        for step in flow.prepare {
            match step {
                Prepare::Apply(version) => {
                    let image = self.image(*version)?;
                    self.update_disk(&disk, &["apply", "--trust"], &[&self.keys.public, &image])?;
                }
                Prepare::Commit => self.update_disk(&disk, &["commit"], &[])?,
                Prepare::OlderLoader => {
                    Esp::of_disk(&disk)?.copy_in(&loader_252(self.arch())?, &self.arch().loader_path())?;
                }
                Prepare::Rename(from, to) => {
                    Esp::of_disk(&disk)?.rename(&format!("loader/entries/{from}"), to)?;
                }
                Prepare::Twin(from, to, chain) => twins::plant(&disk, from, to, *chain, dir)?,
                Prepare::Conf(line) => Self::add_line(&disk, line, dir)?,
                Prepare::FillEntries => room::fill(&disk)?,
                Prepare::Remove(path) => Esp::of_disk(&disk)?.remove(path)?,
                Prepare::NoBackupHeader => {
                    let file = File::options().write(true).open(&disk)?;
                    file.write_all_at(&[0; 512], file.metadata()?.len() - 512)?;
                }
                Prepare::GuardCountsFive => run_on(&disk, &COUNTS_FIVE, &COUNTS_FIVE.op, "b", dir)?,
                Prepare::Cut(name, thousandths) => self.cut(&disk, name, *thousandths)?,
            }
        }
        Ok(disk)
    }

    fn add_line(disk: &Path, line: &str, dir: &Path) -> Result<()> {
        let esp = Esp::of_disk(disk)?;
        let mut text = esp.read(LOADER_CONF)?;
        text.extend(format!("{line}\n").bytes());
        let path = dir.join("loader.conf");
        std::fs::write(&path, text)?;
        esp.copy_in(&path, LOADER_CONF)
    }

    /// Makes `disk` what another flow leaves when the power is cut.
    fn cut(&self, disk: &Path, name: &str, thousandths: usize) -> Result<()> {
        let Some(flow) = flow(name) else { bail!("no flow {name}") };
        let recording = Recording::make(self, flow, None, &self.lab.machine(&format!("{name}-to-cut"))?)?;
        copy(&recording.base, disk)?;
        record::replay(&recording.log, disk, thousandths)
    }
}

fn image() -> Result<Command> {
    Ok(Command::new(workspace::host_programs()?.image))
}

/// Copies a disk, holes included.
fn copy(from: &Path, to: &Path) -> Result<()> {
    run(setup::command("cp").arg("--sparse=always").arg(from).arg(to)).context("cannot copy a disk")?;
    Ok(())
}

/// Bytes that no two versions share, the same each time.
fn noise(version: u32, len: usize) -> Vec<u8> {
    /// Tells these numbers from others.
    const PURPOSE: u64 = 0x0153;
    let mut rng = Rng::new(u64::from(version), PURPOSE);
    std::iter::repeat_with(|| rng.below(256) as u8).take(len).collect()
}

/// A file that begins as a kernel with an EFI stub does (IMG-13), and goes on with noise.
fn small_kernel(arch: Arch, version: u32) -> Vec<u8> {
    let mut bytes = noise(version + 200, 9_000);
    bytes[..256].fill(0);
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 64;
    // Machine, PE32+, EFI application.
    bytes[64..68].copy_from_slice(b"PE\0\0");
    bytes[68..70].copy_from_slice(&arch.pe_machine().to_le_bytes());
    bytes[88..90].copy_from_slice(&[0x0b, 0x02]);
    bytes[156] = 10;
    bytes
}
