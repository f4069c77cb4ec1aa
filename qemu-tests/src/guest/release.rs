//! One version of the guest: the base and what a release adds to it, or breaks in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::base::{BLESS_BOOT, Base, Stub, base, copy, loader_257, pull_in};
use super::checks::{FOLDER as CHECKS, impatient_checks, shipped, shipped_files};
use super::{initrd, initrd_systemd, put, remove};
use crate::arch::Arch;
use crate::secure_boot::Signer;
use crate::setup;
use crate::workspace::{GuestPrograms, HostPrograms};

/// Same for every image, so that equal trees give equal images.
const EROFS_UUID: &str = "7261ffff-7068-4f53-8000-000000000000";

/// Units of the lab, and that of the loader's update; those of the health check come from their own folder.
const UNITS: &[(&str, &str, &str)] = &[
    ("guest-agent.service", "sysinit.target", include_str!("../../guest/units/guest-agent.service")),
    ("guest-network.service", "multi-user.target", include_str!("../../guest/units/guest-network.service")),
    ("ralphd.service", "multi-user.target", include_str!("../../guest/units/ralphd.service")),
    (
        "ralph-update-loader.service",
        "multi-user.target",
        include_str!("../../../updater/units/ralph-update-loader.service"),
    ),
];

/// A version of the operating system, as a release engineer would describe it, for whatever architecture.
#[derive(Clone, Debug)]
pub struct Release {
    /// The version, as in `os-release`.
    pub version: String,
    /// Its kernel options, besides the lab's.
    pub options: Vec<String>,
    ralphd: String,
    initrd: Initrd,
    /// How it is booted: by kernel and initrd, or by a unified image.
    unified: Option<Unified>,
    sandbox: bool,
    changes: Vec<Change>,
}

/// A unified kernel image of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unified {
    /// What starts the kernel.
    pub stub: Stub,
    /// Who signs it, if anybody does.
    pub signer: Option<Signer>,
}

/// What the initrd does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initrd {
    /// It hands over to the system.
    Works,
    /// It hands over to the system, and is one with systemd, as dracut or mkosi make it.
    Systemd,
    /// It hangs before it has started the boot guard.
    HangsBeforeGuard,
    /// It hangs as soon as the boot guard runs.
    HangsAfterGuard,
    /// The kernel panics, after the guard has counted.
    Panics,
    /// It mounts `/var` read-only.
    VarReadOnly,
}

/// A boot loader that a system carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarriedLoader {
    /// systemd-boot 257.
    V257,
    /// A program that says it is that, and goes back to the firmware as soon as it is started.
    ReturnsAtOnce,
}

/// A change to the tree.
#[derive(Clone, Debug)]
enum Change {
    /// A file with this content, over what is there.
    File(String, String),
    /// The boot loader that the system carries (LUP-2).
    Loader(CarriedLoader),
    /// Nothing at this path.
    Remove(String),
    /// A unit that a target pulls in (`how` is `wants` or `requires`); without content it is there already.
    Unit { name: String, target: &'static str, how: &'static str, content: Option<String> },
}

/// A built version: what `ralph-image build` takes.
#[derive(Clone, Debug)]
pub struct Built {
    /// The root file system, an erofs image.
    pub root: PathBuf,
    /// The kernel.
    pub linux: PathBuf,
    /// The initrd.
    pub initrd: PathBuf,
}

impl Release {
    /// A healthy version.
    pub fn new(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            options: Vec::new(),
            ralphd: String::new(),
            initrd: Initrd::Works,
            unified: None,
            sandbox: true,
            changes: Vec::new(),
        }
    }

    /// The same with a stand-in that behaves as told, a line for each instruction (see the program `ralphd`).
    #[must_use]
    pub fn with_ralphd(mut self, behaviour: &str) -> Self {
        behaviour.clone_into(&mut self.ralphd);
        self
    }

    /// The same with another initrd.
    #[must_use]
    pub fn with_initrd(mut self, initrd: Initrd) -> Self {
        self.initrd = initrd;
        self
    }

    /// The same as a unified kernel image.
    #[must_use]
    pub fn with_unified(mut self, stub: Stub, signer: Option<Signer>) -> Self {
        self.unified = Some(Unified { stub, signer });
        self
    }

    /// Its unified kernel image, if it has one.
    pub fn unified(&self) -> Option<Unified> {
        self.unified
    }

    /// The same with one more kernel option.
    #[must_use]
    pub fn with_option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// The same with a file (path in the root) over what is there.
    #[must_use]
    pub fn with_file(mut self, path: &str, content: &str) -> Self {
        self.changes.push(Change::File(path.to_owned(), content.to_owned()));
        self
    }

    /// The same with a boot loader.
    #[must_use]
    pub fn with_loader(mut self, loader: CarriedLoader) -> Self {
        self.changes.push(Change::Loader(loader));
        self
    }

    /// The same without a file.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.changes.push(Change::Remove(path.to_owned()));
        self
    }

    /// The same with a unit that `target` pulls in.
    #[must_use]
    pub fn with_unit(mut self, name: &str, target: &'static str, content: &str) -> Self {
        let (name, content) = (name.to_owned(), Some(content.to_owned()));
        self.changes.push(Change::Unit { name, target, how: "wants", content });
        self
    }

    /// The same with a unit that `target` cannot be reached without.
    #[must_use]
    pub fn with_required_unit(mut self, name: &str, target: &'static str, content: &str) -> Self {
        let (name, content) = (name.to_owned(), Some(content.to_owned()));
        self.changes.push(Change::Unit { name, target, how: "requires", content });
        self
    }

    /// The same with an operator's file of checks, `NAME.toml`.
    #[must_use]
    pub fn with_checks(self, name: &str, content: &str) -> Self {
        self.with_file(&format!("{CHECKS}/{name}.toml"), content)
    }

    /// The same without the check that makes a sandbox, for a scenario that is about something else: under emulation it takes two
    /// to three seconds of a processor in each boot, and twice as long.
    #[must_use]
    pub fn without_sandbox_check(mut self) -> Self {
        self.sandbox = false;
        self
    }

    /// The health check's configuration, but for this release's own changes: files' paths in the root, and their content.
    ///
    /// # Errors
    /// When what is shipped cannot be read.
    pub fn checks(&self) -> Result<Vec<(String, String)>> {
        impatient_checks(self.sandbox)
    }

    /// The same, but a failed trial is marked bad at once (HLT-34): one boot in place of three.
    #[must_use]
    pub fn given_up_at_once(self) -> Self {
        self.with_checks("00-policy", "[policy]\non-failure = \"mark-bad\"\n")
    }

    /// The same, but nobody has masked systemd's own way to commit (HLT-61). Without its generator, which needs the
    /// loader's variables, a link does what that would do.
    #[must_use]
    pub fn with_bless_boot(mut self) -> Self {
        self.changes.push(Change::Remove(format!("etc/systemd/system/{BLESS_BOOT}")));
        let name = BLESS_BOOT.to_owned();
        self.changes.push(Change::Unit { name, target: "basic.target", how: "wants", content: None });
        self
    }

    /// Builds it for `arch` in `dir`, with `programs` inside; `extra` are further files (path in the root, content), which a
    /// release's own changes win over.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn build(&self, arch: Arch, programs: &GuestPrograms, extra: &[(&str, &[u8])], dir: &Path) -> Result<Built> {
        let base = base(arch)?;
        std::fs::create_dir_all(dir)?;
        let tree = dir.join("tree");
        remove(&tree)?;
        // Hard links: a new version is a few files beside the shared ones.
        setup::run(setup::command("cp").args(["--archive", "--link"]).arg(&base.tree).arg(&tree))?;
        self.add(arch, &tree, programs)?;
        for (path, content) in extra {
            put(&tree.join(path), content)?;
        }
        for change in &self.changes {
            change.apply(arch, &tree)?;
        }
        let root = dir.join("root.erofs");
        remove(&root)?;
        setup::run(
            setup::command("mkfs.erofs")
                .args(["-T0", "--all-root", "-zlz4", "-x-1"])
                .args(["-U", EROFS_UUID])
                .arg(&root)
                .arg(&tree),
        )?;
        remove(&tree)?;
        let initrd = self.initrd(arch, &base, programs, dir)?;
        Ok(Built { root, linux: base.linux, initrd })
    }

    /// A short name for all that decides what its image holds.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fingerprint(&self, arch: Arch, host: &HostPrograms, programs: &GuestPrograms) -> Result<String> {
        let base = base(arch)?;
        let mut parts: Vec<Vec<u8>> = vec![format!("{self:?} {UNITS:?} {base:?}").into_bytes()];
        parts.push(arch.kernel_options().into_bytes());
        let all = [
            &programs.update,
            &programs.health_check,
            &programs.sandbox,
            &programs.boot_guard,
            &host.image,
            &programs.ralphd,
            &programs.agent,
        ];
        for program in all {
            parts.push(std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?);
        }
        let mut folders = vec![shipped()];
        while let Some(folder) = folders.pop() {
            for path in shipped_files(&folder)? {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    parts.push(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
                }
            }
        }
        Ok(super::fingerprint(&(parts, self.checks()?)))
    }

    fn initrd(&self, arch: Arch, base: &Base, programs: &GuestPrograms, dir: &Path) -> Result<PathBuf> {
        let flavour = match self.initrd {
            Initrd::Works | Initrd::Systemd => None,
            Initrd::HangsBeforeGuard => Some("hangs-before-guard"),
            Initrd::HangsAfterGuard => Some("hangs-after-guard"),
            Initrd::Panics => Some("panics"),
            Initrd::VarReadOnly => Some("var-read-only"),
        };
        let guard = dir.join("ralph-boot-guard");
        strip(arch, &programs.boot_guard, &guard)?;
        let path = dir.join("initrd");
        if self.initrd == Initrd::Systemd {
            initrd::assemble(&base.initrd_systemd, &initrd_systemd::guard(&guard)?, &path)?;
        } else {
            initrd::assemble(&base.initrd, &initrd::guard(&guard, flavour)?, &path)?;
        }
        Ok(path)
    }

    fn add(&self, arch: Arch, tree: &Path, programs: &GuestPrograms) -> Result<()> {
        let version = &self.version;
        put(
            &tree.join("usr/lib/os-release"),
            format!("ID=ralphos\nNAME=RalphOS\nPRETTY_NAME=\"RalphOS {version}\"\nVERSION_ID={version}\n"),
        )?;
        put(&tree.join("usr/lib/ralphd/behave"), format!("{}\n", self.ralphd))?;
        for (program, name) in [
            (&programs.update, "ralph-update"),
            (&programs.health_check, "ralph-health-check"),
            (&programs.sandbox, "ralph-sandbox"),
            (&programs.ralphd, "ralphd"),
            (&programs.agent, "guest-agent"),
        ] {
            strip(arch, program, &tree.join("usr/bin").join(name))?;
        }
        let units = tree.join("usr/lib/systemd/system");
        for (name, target, content) in UNITS {
            put(&units.join(name), content)?;
            pull_in(&units, target, "wants", name)?;
        }
        add_health_check(tree, &units)
    }
}

/// Its place in the root.
const CARRIED_LOADER: &str = "usr/lib/ralph-update/loader.efi";

impl CarriedLoader {
    fn bytes(self, arch: Arch) -> Result<Vec<u8>> {
        let path = loader_257(arch)?;
        let mut bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if self == Self::ReturnsAtOnce {
            let code: &[u8] = match arch {
                // mov eax, 1; ret
                Arch::X86_64 => &[0xb8, 1, 0, 0, 0, 0xc3],
                // mov x0, #1; ret
                Arch::Aarch64 => &[0x20, 0, 0x80, 0xd2, 0xc0, 0x03, 0x5f, 0xd6],
            };
            let at = entry_point(&bytes).with_context(|| format!("{} is no program", path.display()))?;
            bytes.get_mut(at..at + code.len()).context("no code at its entry point")?.copy_from_slice(code);
        }
        Ok(bytes)
    }
}

/// Where in the file a PE program begins to run.
fn entry_point(program: &[u8]) -> Option<usize> {
    let number = |at: usize, len: usize| -> Option<usize> {
        Some(program.get(at..at + len)?.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let head = number(60, 4)?;
    let (sections, optional, entry) = (number(head + 6, 2)?, number(head + 20, 2)?, number(head + 40, 4)?);
    (0..sections).find_map(|n| {
        let section = head + 24 + optional + 40 * n;
        let (start, len, raw) = (number(section + 12, 4)?, number(section + 16, 4)?, number(section + 20, 4)?);
        (start..start + len).contains(&entry).then(|| raw + entry - start)
    })
}

impl Change {
    fn apply(&self, arch: Arch, tree: &Path) -> Result<()> {
        match self {
            Self::Loader(loader) => put(&tree.join(CARRIED_LOADER), loader.bytes(arch)?),
            Self::File(path, content) => put(&tree.join(path), content),
            Self::Remove(path) => remove(&tree.join(path)),
            Self::Unit { name, target, how, content } => {
                let units = tree.join("usr/lib/systemd/system");
                if let Some(content) = content {
                    put(&units.join(name), content)?;
                }
                pull_in(&units, target, how, name)
            }
        }
    }
}

/// Copies a program without debug information: it is most of its size, and the guest hashes every byte.
fn strip(arch: Arch, program: &Path, to: &Path) -> Result<()> {
    remove(to)?;
    setup::run(arch.binutils("strip").arg("-o").arg(to).arg(program))
        .with_context(|| format!("cannot put {} into the guest", program.display()))?;
    Ok(())
}

/// The bytes of a program without debug information; `dir` is for a file in between.
pub(crate) fn stripped(arch: Arch, program: &Path, dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join("stripped");
    strip(arch, program, &path)?;
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    remove(&path)?;
    Ok(bytes)
}

/// Installs the health check as its own folder says, by links in place of `systemctl enable`.
fn add_health_check(tree: &Path, units: &Path) -> Result<()> {
    const UNIT: &str = "ralph-health-check.service";
    let shipped = shipped();
    copy(&shipped.join(UNIT), &units.join(UNIT))?;
    pull_in(units, "boot-complete.target", "requires", UNIT)?;
    pull_in(units, "multi-user.target", "wants", UNIT)?;
    // HLT-66: it must have a job for the guard's second deadline to hang on.
    pull_in(units, "multi-user.target", "wants", "boot-complete.target")?;
    let lib = tree.join("usr/lib");
    for (folder, place) in [
        ("checks.d", lib.join("ralph-health-check/checks.d")),
        ("system.conf.d", lib.join("systemd/system.conf.d")),
        ("emergency.service.d", units.join("emergency.service.d")),
        ("rescue.service.d", units.join("rescue.service.d")),
    ] {
        std::fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
        for file in shipped_files(&shipped.join(folder))? {
            copy(&file, &place.join(file.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}
