//! What the contenders work with: images in each one's format, a slot, a disk, keys.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use disk_layout::{DiskLayout, Slot};
use qemu_tests::arch::Arch;
use qemu_tests::{guest, setup, workspace};

use crate::debian::{self, Fs, Roots};
use crate::device::Loop;
use crate::fill;
use crate::made::made;
use crate::server::Server;

/// Slots are this much longer than the root they hold: its hash tree and room for growth.
const ROOM: u64 = 64 << 20;
const ESP: &str = "64M";
/// Every contender's full image: what decompressing costs differs with the level.
const LEVEL: &str = "3";

/// The programs under test, as released.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `ralph-update`.
    pub update: PathBuf,
    /// `ralph-image`.
    pub image: PathBuf,
    /// The rest of what a machine has.
    pub others: [PathBuf; 2],
}

impl Programs {
    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.update, &self.image].into_iter().chain(&self.others).map(PathBuf::as_path)
    }
}

/// Loop devices, attached for as long as this lives: `slot.dev` over `slot.img`, `disk-slot.dev` over slot B of `disk.raw`.
#[derive(Debug)]
pub struct Loops {
    _attached: [Loop; 2],
}

/// The files of one pair of roots. All lie in one folder.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    /// The plain roots.
    pub roots: Roots,
    /// Which file system they are.
    pub fs: Fs,
    /// Which images.
    pub size: Size,
    /// Where things lie, built as released.
    pub programs: Programs,
    /// Where the disk's EFI partition begins, in bytes.
    pub esp_start: u64,
    /// Where its slot B begins, in bytes.
    pub slot_b: u64,
    /// Bytes of a slot.
    pub slot_len: u64,
    /// Block devices, or why there are none.
    pub loops: std::result::Result<Loops, String>,
    /// Serves the folder, and counts.
    pub server: Server,
    /// Threads that ralph-update is asked to work with.
    pub workers: Option<NonZeroUsize>,
    /// Two at once would take each other's devices, and measure each other.
    _lock: File,
}

impl Lab {
    /// Makes everything that is not there yet.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn prepare(fs: Fs, size: Size) -> Result<Self> {
        setup::ensure_bench_tools()?;
        let programs = build_programs()?;
        let cache = workspace::target_dir().join("bench");
        let trees = cache.join(format!("debian-{}", debian::recipe()));
        std::fs::create_dir_all(&trees).with_context(|| format!("cannot create {}", trees.display()))?;
        let lock = cache.join("lock");
        let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
        lock.try_lock().context("another update-bench is at work")?;
        let mut roots = debian::roots(&trees, fs)?;
        let name = match size {
            Size::Real => fs.name().to_owned(),
            Size::Large => format!("{}-8G", fs.name()),
        };
        let dir = trees.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        if size == Size::Large {
            roots.v2 = large_root(&roots, fs, &dir)?;
        }
        let slot_len = std::fs::metadata(&roots.v2)?.len();
        let slot_len = (slot_len + slot_len / 64 + ROOM).next_multiple_of(4 << 20);
        let server = Server::start(&dir)?;
        let loops = Err("not asked for".to_owned());
        let mut lab = Self {
            dir,
            roots,
            fs,
            size,
            programs,
            esp_start: 0,
            slot_b: 0,
            slot_len,
            loops,
            server,
            workers: None,
            _lock: lock,
        };
        lab.keys()?;
        lab.plain()?;
        lab.ours()?;
        lab.make_disk()?;
        lab.loops = lab.attach().map_err(|error| format!("{error:#}"));
        Ok(lab)
    }

    /// A file of the lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The same as text, for a command line.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Keys of ours, and a certificate for those who want one.
    fn keys(&self) -> Result<()> {
        made(&self.path("key.pem"), &[], |new| {
            // It adds the endings itself.
            setup::run(setup::command(&self.image_tool()).args(["keygen", "--out"]).arg(new.with_extension("")))?;
            Ok(std::fs::rename(new.with_extension("pub.pem"), self.path("key.pub.pem"))?)
        })?;
        made(&self.path("cert.pem"), &[], |new| {
            let mut openssl = setup::command("openssl");
            openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=bench"]);
            // Not for TLS: the peers ask for a certificate that may sign.
            openssl.args([
                "-addext",
                "keyUsage=digitalSignature",
                "-addext",
                "extendedKeyUsage=emailProtection,codeSigning",
            ]);
            openssl.arg("-keyout").arg(self.path("cert.key.pem")).arg("-out").arg(new);
            setup::run(&mut openssl).map(drop)
        })
    }

    fn image_tool(&self) -> String {
        self.programs.image.display().to_string()
    }

    /// A slot as a file, and what the floor decompresses into it.
    fn plain(&self) -> Result<()> {
        made(&self.path("slot.img"), &[&self.roots.v2], |new| fill::noise(new, 0, self.slot_len))?;
        made(&self.path("v2.zst"), &[&self.roots.v2], |new| {
            setup::run(setup::command("zstd").args(["-q", &format!("-{LEVEL}")]).arg(&self.roots.v2).arg("-o").arg(new))
                .map(drop)
        })
    }

    /// Ours: both versions, and a disk with v1 in slot A.
    fn ours(&self) -> Result<()> {
        made(&self.path("linux"), &[], |new| Ok(std::fs::write(new, small_kernel())?))?;
        made(&self.path("initrd"), &[], |new| Ok(std::fs::write(new, b"an initrd\n")?))?;
        for (version, root) in [(1, &self.roots.v1), (2, &self.roots.v2)] {
            let from: [&Path; 3] = [root, &self.programs.image, &self.path("key.pem")];
            // The longest chunks that there are, where memory is looked at.
            let large: &[&str] = if self.size == Size::Large { &["--cut", "fixed", "--chunk-size", "4M"] } else { &[] };
            made(&self.path(&format!("v{version}.ralph.zst")), &from, |new| {
                self.build_image(version, root, &[&["--level", LEVEL], large].concat(), new)
            })?;
        }
        Ok(())
    }

    /// `ralph-image build`.
    ///
    /// # Errors
    /// When it fails.
    pub fn build_image(&self, version: u32, root: &Path, how: &[&str], new: &Path) -> Result<()> {
        let mut build = setup::command(&self.image_tool());
        build.args(["build", "--os-id", "ralphos", "--arch", "x86_64", "--epoch", "1"]);
        build.args(["--version", &format!("{version}.0.0")]).args(how);
        for (option, path) in [("--linux", "linux"), ("--initrd", "initrd"), ("--key", "key.pem")] {
            build.arg(option).arg(self.path(path));
        }
        setup::run(build.arg("--root").arg(root).arg("-o").arg(new)).map(drop)
    }

    fn make_disk(&mut self) -> Result<()> {
        let image = self.path("v1.ralph.zst");
        let disk = self.path("disk.raw");
        made(&disk, &[&image, &self.roots.v2], |new| {
            let mut disk = setup::command(&self.image_tool());
            disk.args(["disk", "--seed", "1", "--esp-size", ESP, "--var-size", "64M"]);
            disk.args(["--slot-size", &self.slot_len.to_string()]);
            disk.arg("--image").arg(&image).arg("--trust").arg(self.path("key.pub.pem"));
            disk.arg("--loader").arg(guest::loader_252(Arch::X86_64)?).arg("-o").arg(new);
            setup::run(&mut disk)?;
            // After an apply the disk has to forget it, and only the EFI partition knows. Kept now: the next run finds a
            // disk that was applied to.
            let esp = DiskLayout::open(new)?.esp;
            let mut dd = setup::command("dd");
            dd.args(["bs=1M", "status=none", "iflag=skip_bytes,count_bytes"]);
            dd.args([format!("skip={}", esp.start), format!("count={}", esp.len)]);
            dd.arg(format!("if={}", new.display())).arg(format!("of={}", self.text("esp.img")));
            setup::run(&mut dd).map(drop)
        })?;
        let layout = DiskLayout::open(&disk)?;
        self.slot_b = layout.slot(Slot::B).start;
        self.esp_start = layout.esp.start;
        Ok(())
    }

    /// The links stay the same however the kernel numbers its devices.
    fn attach(&self) -> Result<Loops> {
        let slot = Loop::attach(&self.path("slot.img"), 0, self.slot_len)?;
        let disk_slot = Loop::attach(&self.path("disk.raw"), self.slot_b, self.slot_len)?;
        for (device, name) in [(&slot, "slot.dev"), (&disk_slot, "disk-slot.dev")] {
            let link = self.path(name);
            // It may be there from the last run.
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(device.path(), &link)
                .with_context(|| format!("cannot link {}", link.display()))?;
        }
        Ok(Loops { _attached: [slot, disk_slot] })
    }
}

/// Which images are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The pair as Debian makes it, somewhat above 1 GiB.
    Real,
    /// v2 grown to 8 GiB, for figures of memory.
    Large,
}

/// v2 with copies of the other file system's image in it, until there are 8 GiB.
fn large_root(roots: &Roots, fs: Fs, dir: &Path) -> Result<PathBuf> {
    if fs != Fs::Ext4 {
        bail!("the image of 8 GiB is made as ext4 only");
    }
    let image = dir.join("v2.ext4");
    let filling = &roots.v1;
    made(&image, &[&roots.v2, filling], |new| {
        setup::run(setup::command("cp").arg("--sparse=always").arg(&roots.v2).arg(new))?;
        File::options().write(true).open(new)?.set_len(8 << 30)?;
        setup::run(setup::command("e2fsck").args(["-f", "-p"]).arg(new))?;
        setup::run(setup::command("resize2fs").arg(new))?;
        let copies = ((8 << 30) - std::fs::metadata(&roots.v2)?.len()) / std::fs::metadata(filling)?.len();
        for copy in 0..copies {
            let request = format!("write {} copy{copy}", filling.display());
            setup::run(setup::command("debugfs").args(["-w", "-R", &request]).arg(new))?;
        }
        setup::run(setup::command("e2fsck").args(["-f", "-n"]).arg(new)).map(drop)
    })?;
    Ok(image)
}

fn build_programs() -> Result<Programs> {
    let target = workspace::target_dir();
    // Apart: what one of them needs must not be built into the others.
    for packages in [["updater", "image-tools"], ["boot-guard", "health-check"]] {
        let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--release", "--locked", "--bins"]);
        cargo.args(packages.map(|package| format!("--package={package}")));
        cargo.arg("--manifest-path").arg(workspace::source_dir().join("Cargo.toml")).arg("--target-dir").arg(&target);
        setup::run(&mut cargo).context("the programs under test do not build")?;
    }
    let bin = |name: &str| target.join("release").join(name);
    let others = ["ralph-boot-guard", "ralph-health-check"].map(bin);
    Ok(Programs { update: bin("ralph-update"), image: bin("ralph-image"), others })
}

/// The least that passes for a kernel of x86_64: what is measured is the root.
fn small_kernel() -> Vec<u8> {
    let mut linux = vec![0; 40_000];
    let pieces: [(usize, &[u8]); 5] =
        [(0, b"MZ"), (0x3C, &[64]), (64, b"PE\0\0\x64\x86"), (88, &[0x0B, 0x02]), (156, &[10])];
    for (at, bytes) in pieces {
        linux[at..at + bytes.len()].copy_from_slice(bytes);
    }
    linux
}
