//! What a scenario starts from: a folder of its own, the programs under test, keys, images and a disk, all made by
//! those programs as a release engineer would.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::setup;
use crate::workspace;

/// The kernel options of every image: a console to record, a reboot after a panic (HLT-62), and what makes software
/// emulation faster.
pub const OPTIONS: &str = "console=ttyS0 panic=1 quiet systemd.show_status=true mitigations=off \
    cryptomgr.notests no_timer_check tsc=reliable random.trust_cpu=on apparmor=0 selinux=0 nokaslr";

/// A scenario's folder and what was made in it.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
}

/// Runs a scenario named `name` in a folder of its own, which stays for a look afterwards. When it fails, the last
/// boot of every machine it ran is printed.
///
/// # Errors
/// What the scenario says.
pub fn scenario(name: &str, run: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    if setup::skip_vm() {
        eprintln!("{name}: not run, because RALPH_SKIP_VM=1 asks for that");
        return Ok(());
    }
    let lab = Lab::new(name)?;
    run(&lab).inspect_err(|_| lab.print_boots())
}

impl Lab {
    /// Makes the folder, empty.
    ///
    /// # Errors
    /// When something cannot be made.
    fn new(name: &str) -> Result<Self> {
        setup::ensure_tools()?;
        let dir = workspace::cache_dir()?.join("runs").join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// A path in the scenario's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new folder for a machine.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn machine(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    fn print_boots(&self) {
        for machine in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = machine.path().join("last-boot.txt");
            if let Ok(text) = std::fs::read_to_string(&path) {
                eprintln!("--- last boot of {}:\n{text}---", machine.path().display());
            }
        }
    }
}
