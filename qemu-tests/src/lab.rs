//! What a scenario starts from: a folder of its own, the programs under test, keys, images and a disk, all made by
//! those programs as a release engineer would.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::board::{Board, Firmware};
use crate::guest::{self, Release, Stub};
use crate::secure_boot::{self, SecureKeys, Signer};
use crate::setup::{self, run};
use crate::vm::VARIABLES;
use crate::workspace;

/// Kernel options of every image, besides its architecture's: a reboot after a panic (HLT-62), and something to read.
const OPTIONS: &str = "panic=1 quiet systemd.show_status=true";

/// In the folder of a scenario that passed: its seconds, and the firmware.
pub const TIME: &str = "seconds.txt";

/// A key pair: two PEM files.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Signs images.
    pub private: PathBuf,
    /// Goes into the system.
    pub public: PathBuf,
}

/// A scenario's folder and what was made in it.
#[derive(Debug)]
pub struct Lab {
    /// What its guests are.
    pub arch: Arch,
    firmware: Firmware,
    dir: PathBuf,
    /// The images made so far: release and keys, file.
    images: RefCell<Vec<(String, PathBuf)>>,
}

/// As [`scenario`], with machines whose firmware enforces Secure Boot, and a signed 1.0.0.
///
/// # Errors
/// What the scenario says.
pub fn secure_scenario(arch: Arch, name: &str, steps: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    run_scenario(arch, Firmware::SecureBoot, name, steps)
}

/// Runs a scenario named `name` with guests of `arch` in a folder of its own, which stays for a look when it fails; of one that passes only the
/// console stays. What the machines of a failed one said is printed.
///
/// # Errors
/// What the scenario says.
pub fn scenario(arch: Arch, name: &str, steps: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    run_scenario(arch, Firmware::Open, name, steps)
}

fn run_scenario(arch: Arch, firmware: Firmware, name: &str, steps: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    if setup::skip_vm() {
        eprintln!("{name}: not run, because RALPH_SKIP_VM=1 asks for that");
        return Ok(());
    }
    if !Arch::wanted()?.contains(&arch) {
        eprintln!("{name}: not run on {arch}, because RALPH_VM_ARCH asks for that");
        return Ok(());
    }
    let lab = Lab { firmware, ..Lab::new(arch, name)? };
    let start = Instant::now();
    steps(&lab).inspect_err(|_| lab.print_boots())?;
    let seconds = start.elapsed().as_secs();
    eprintln!("{name} on {arch}: {seconds} s");
    lab.keep_the_console()?;
    let told = format!("{seconds} {}\n", firmware.name());
    let path = lab.path(TIME);
    std::fs::write(&path, told).with_context(|| format!("cannot write {}", path.display()))
}

impl Lab {
    /// Makes the folder, empty.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn new(arch: Arch, name: &str) -> Result<Self> {
        setup::ensure_tools()?;
        let dir = workspace::cache_dir()?.join("runs").join(arch.name()).join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self::at(arch, dir))
    }

    fn at(arch: Arch, dir: PathBuf) -> Self {
        Self { arch, firmware: Firmware::Open, dir, images: RefCell::default() }
    }

    /// A path in the scenario's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The machines of this lab.
    pub fn board(&self) -> Board {
        Board { arch: self.arch, firmware: self.firmware }
    }

    /// A new folder for a machine.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn machine(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let variables = dir.join(VARIABLES);
        if self.firmware == Firmware::SecureBoot && !variables.exists() {
            let enrolled = secure_boot::enrolled_variables(self.arch)?;
            std::fs::copy(enrolled, &variables).with_context(|| format!("cannot make {}", variables.display()))?;
        }
        Ok(dir)
    }

    /// Removes the folder and all that is in it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self) -> Result<()> {
        guest::remove(&self.dir)
    }

    /// Makes the key pair of this lab's images.
    ///
    /// # Errors
    /// When `ralph-image` fails.
    pub fn keygen(&self) -> Result<Keys> {
        let name = self.path("release");
        run(image()?.args(["keygen", "--out"]).arg(&name))?;
        Ok(self.keys())
    }

    /// Builds and signs the image of a release, which trusts `keys` for the next one: `vVERSION.zst`. Asked for once
    /// more, it is the same file.
    ///
    /// # Errors
    /// When a tool or `ralph-image` fails.
    pub fn image(&self, release: &Release, keys: &Keys) -> Result<PathBuf> {
        let wanted = format!("{release:?} {keys:?}");
        let made = self.images.borrow().iter().find(|(image, _)| *image == wanted).map(|(_, path)| path.clone());
        if let Some(path) = made {
            return Ok(path);
        }
        let path = self.build_image(release, keys)?;
        self.images.borrow_mut().push((wanted, path.clone()));
        Ok(path)
    }

    fn build_image(&self, release: &Release, keys: &Keys) -> Result<PathBuf> {
        let public = std::fs::read(&keys.public).with_context(|| format!("cannot read {}", keys.public.display()))?;
        let checks = release.checks()?;
        let mut extra: Vec<(&str, &[u8])> = vec![
            ("usr/lib/ralph-update/keys/release.pem", &public),
            ("usr/lib/ralph-update/update.toml", b"os-id = \"ralphos\"\n"),
        ];
        extra.extend(checks.iter().map(|(path, text)| (path.as_str(), text.as_bytes())));
        let faster = self.arch.kernel_options();
        let options = [OPTIONS, &faster]
            .into_iter()
            .chain(release.options.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ");
        let parts = self.path(&format!("v{}", release.version));
        let built = release.build(self.arch, &workspace::guest_programs(self.arch)?, &extra, &parts)?;
        let path = self.path(&format!("v{}.zst", release.version));
        let mut linux = built.linux;
        let mut build = image()?;
        build.arg("build");
        if let Some(unified) = release.unified() {
            // Debian signs its kernels: by itself it could be started with any initrd (UKI-7).
            let bare = parts.join("linux");
            std::fs::copy(&linux, &bare).with_context(|| format!("cannot copy {}", linux.display()))?;
            run(setup::command("sbattach").arg("--remove").arg(&bare))?;
            linux = bare;
            build.arg("--stub").arg(guest::stub(self.arch, unified.stub)?);
            if let Some(signer) = unified.signer {
                let (key, certificate) = SecureKeys::get()?.pair(signer);
                build.arg("--sign-key").arg(key).arg("--sign-cert").arg(certificate);
            }
        }
        run(build
            .arg("--root")
            .arg(&built.root)
            .arg("--linux")
            .arg(&linux)
            .arg("--initrd")
            .arg(&built.initrd)
            .args(["--os-id", "ralphos", "--arch", self.arch.name(), "--epoch", "1"])
            .args(["--version", &release.version])
            .args(["--title", &format!("RalphOS {}", release.version)])
            .args(["--cmdline", &options])
            // A root that is packed already: more effort takes seconds of each scenario, and makes nothing smaller.
            .args(["--level", "1"])
            .arg("--key")
            .arg(&keys.private)
            .arg("-o")
            .arg(&path))?;
        Ok(path)
    }

    /// A payload of an image, as a file.
    ///
    /// # Errors
    /// When `ralph-image` fails.
    pub fn extract(&self, image_file: &Path, payload: &str, keys: &Keys) -> Result<PathBuf> {
        let path = image_file.with_extension(payload);
        let mut extract = image()?;
        extract.arg("extract").arg(image_file).arg("--trust").arg(&keys.public).args(["--payload", payload]);
        run(extract.arg("-o").arg(&path))?;
        Ok(path)
    }

    /// Makes the disk of a new machine, with `image` in slot A.
    ///
    /// # Errors
    /// When `ralph-image` fails.
    pub fn disk(&self, image_file: &Path, keys: &Keys) -> Result<PathBuf> {
        let path = self.path("disk.raw");
        let mut loader = guest::base(self.arch)?.loader;
        let mut disk = image()?;
        disk.arg("disk");
        if self.firmware == Firmware::SecureBoot {
            let (signed, keys) = (self.path("loader.efi"), SecureKeys::get()?);
            keys.sign(Signer::Ours, &loader, &signed)?;
            loader = signed;
            disk.arg("--secure-boot").arg("--secure-boot-cert").arg(keys.pair(Signer::Ours).1);
        }
        run(disk
            .arg("--image")
            .arg(image_file)
            .arg("--trust")
            .arg(&keys.public)
            .arg("--loader")
            .arg(loader)
            .args(["--slot-size", "160M", "--var-size", "64M", "--esp-size", "128M"])
            .arg("-o")
            .arg(&path))?;
        Ok(path)
    }

    /// A disk of its own with a healthy 1.0.0 in slot A, and the keys for its images. The original is made once for all
    /// scenarios, and again when one of the programs or shipped files changes. It makes no sandbox: what boots it is about
    /// another version, or about what comes before a verdict.
    ///
    /// # Errors
    /// When a program fails.
    pub fn shared_disk(&self) -> Result<(PathBuf, Keys)> {
        let (arch, firmware) = (self.arch, self.firmware);
        let release = Release::new("1.0.0").without_sandbox_check();
        let (release, name) = match firmware {
            Firmware::Open => (release, format!("shared-disk-{arch}")),
            Firmware::SecureBoot => {
                (release.with_unified(Stub::V257, Some(Signer::Ours)), format!("signed-disk-{arch}"))
            }
        };
        let key = release.fingerprint(arch, &workspace::host_programs()?, &workspace::guest_programs(arch)?)?;
        let dir = guest::cached(&name, &key, |dir| {
            let lab = Self { firmware, ..Self::at(arch, dir.to_owned()) };
            let keys = lab.keygen()?;
            lab.disk(&lab.image(&release, &keys)?, &keys).map(drop)
        })?;
        let shared = Self::at(arch, dir);
        let disk = self.path("disk.raw");
        run(setup::command("cp").arg("--sparse=always").arg(shared.path("disk.raw")).arg(&disk))?;
        Ok((disk, shared.keys()))
    }

    /// Builds the image of a release and stages it on the disk of a machine that is off.
    ///
    /// # Errors
    /// When a program fails.
    pub fn stage(&self, disk: &Path, release: &Release, keys: &Keys) -> Result<()> {
        let image = self.image(release, keys)?;
        self.update_disk(disk, &["apply", "--trust"], &[&keys.public, &image]).map(drop)
    }

    fn keys(&self) -> Keys {
        Keys { private: self.path("release.pem"), public: self.path("release.pub.pem") }
    }

    /// Runs `ralph-update --disk DISK ARGS FILES` on the host.
    ///
    /// # Errors
    /// When it fails.
    pub fn update_disk(&self, disk: &Path, args: &[&str], files: &[&Path]) -> Result<String> {
        let mut update = Command::new(workspace::host_programs()?.update);
        let output = run(update.arg("--disk").arg(disk).args(args).args(files))?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Removes what a scenario that passed needs no more: images and disks have hundreds of megabytes, and there are dozens
    /// of scenarios.
    fn keep_the_console(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.dir).with_context(|| format!("cannot list {}", self.dir.display()))? {
            let path = entry?.path();
            if !path.join("console.txt").exists() {
                guest::remove(&path)?;
                continue;
            }
            // A machine's variables alone may have 64 MiB.
            for file in std::fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))? {
                let file = file?.path();
                if !file.ends_with("console.txt") {
                    guest::remove(&file)?;
                }
            }
        }
        Ok(())
    }

    fn print_boots(&self) {
        for machine in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = machine.path().join("console.txt");
            if let Ok(text) = std::fs::read_to_string(&path) {
                eprintln!("--- {}:\n{text}---", path.display());
            }
        }
    }
}

/// The program under test, as a release engineer runs it.
fn image() -> Result<Command> {
    Ok(Command::new(workspace::host_programs()?.image))
}
