//! A machine of a scenario: running, with a server that it can fetch images from.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::esp::{Esp, partition};
use crate::guest::Release;
use crate::http::{Answer, Server};
use crate::lab::{Keys, Lab};
use crate::vm::{BOOT_TIMEOUT, OnReset, Vm};

/// A machine that is off, with a healthy 1.0.0 committed in slot A: what most scenarios begin with.
///
/// What is done to it here, on the host, saves boots; the first one can be a trial.
#[derive(Debug)]
pub struct Off<'l> {
    lab: &'l Lab,
    /// The disk.
    pub disk: PathBuf,
    /// Its ESP.
    pub esp: Esp,
    keys: Keys,
}

impl<'l> Off<'l> {
    /// A new machine.
    ///
    /// # Errors
    /// When a program fails.
    pub fn new(lab: &'l Lab) -> Result<Self> {
        let (disk, keys) = lab.shared_disk()?;
        let esp = Esp::of_disk(&disk)?;
        Ok(Self { lab, disk, esp, keys })
    }

    /// Pulls the plug of a machine that runs.
    ///
    /// # Errors
    /// When its disk has no ESP any more.
    pub fn unplugged(lab: &'l Lab, machine: Machine) -> Result<Self> {
        let Machine { vm, keys, disk, .. } = machine;
        drop(vm);
        let esp = Esp::of_disk(&disk)?;
        Ok(Self { lab, disk, esp, keys })
    }

    /// Stages `release` in slot B, by the same program that would do it in the guest.
    ///
    /// # Errors
    /// When a program fails.
    pub fn stage(self, release: &Release) -> Result<Self> {
        self.lab.stage(&self.disk, release, &self.keys)?;
        Ok(self)
    }

    /// The unified kernel image of a release, as a file.
    ///
    /// # Errors
    /// When a program fails, or the release has none.
    pub fn unified_image(&self, release: &Release) -> Result<PathBuf> {
        let image = self.lab.image(release, &self.keys)?;
        self.lab.extract(&image, "uki", &self.keys)
    }

    /// Commits what was staged, unseen.
    ///
    /// # Errors
    /// When a program fails.
    pub fn commit(self) -> Result<Self> {
        self.lab.update_disk(&self.disk, &["commit"], &[])?;
        Ok(self)
    }

    /// Gives an entry another name: another counter.
    ///
    /// # Errors
    /// When there is no such entry.
    pub fn rename(self, entry: &str, name: &str) -> Result<Self> {
        self.esp.rename(&format!("loader/entries/{entry}"), name)?;
        Ok(self)
    }

    /// Leaves what was staged in slot B one try in place of three: each of them would be the same boot once more.
    ///
    /// # Errors
    /// When nothing is staged.
    pub fn one_try(self) -> Result<Self> {
        self.rename("ralphos-b-g2+3-0.conf", "ralphos-b-g2+1-0.conf")
    }

    /// Overwrites the first 64 KiB of a partition: what is found there is garbage.
    ///
    /// # Errors
    /// When there is no such partition.
    pub fn corrupt(self, label: &str) -> Result<Self> {
        let at = partition(&self.disk, label)?;
        let disk = File::options().write(true).open(&self.disk)?;
        disk.write_all_at(&[0x5a; 64 << 10], at).with_context(|| format!("cannot write to {}", self.disk.display()))?;
        Ok(self)
    }

    /// Switches it on, and does not wait for the boot.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(self) -> Result<Machine> {
        Machine::started(self.lab, &self.disk, self.keys)
    }
}

/// A machine that is switched on, and a server that it can reach.
#[derive(Debug)]
pub struct Machine {
    /// The machine itself.
    pub vm: Vm,
    /// Its ESP, seen from outside.
    pub esp: Esp,
    disk: PathBuf,
    keys: Keys,
    server: Server,
}

impl Machine {
    /// A new machine with `release` in slot A.
    ///
    /// # Errors
    /// When a program or the machine fails.
    pub fn with(lab: &Lab, release: &Release) -> Result<Self> {
        let keys = lab.keygen()?;
        let image = lab.image(release, &keys)?;
        let disk = lab.disk(&image, &keys)?;
        Self::on(lab, &disk, keys)
    }

    /// As `on`, but does not wait for the boot.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn started(lab: &Lab, disk: &Path, keys: Keys) -> Result<Self> {
        let esp = Esp::of_disk(disk)?;
        let vm = Vm::start(lab.board(), disk, &lab.machine("machine")?, OnReset::Reboot)?;
        Ok(Self { vm, esp, disk: disk.to_owned(), keys, server: Server::start()? })
    }

    /// Switches on a machine with this disk, and waits until it can be talked to.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn on(lab: &Lab, disk: &Path, keys: Keys) -> Result<Self> {
        let mut machine = Self::started(lab, disk, keys)?;
        machine.vm.wait_boot(BOOT_TIMEOUT)?;
        Ok(machine)
    }

    /// Builds the image of a release and gives its URL for the guest.
    ///
    /// # Errors
    /// When a program fails.
    pub fn serve(&self, lab: &Lab, release: &Release) -> Result<String> {
        let image = lab.image(release, &self.keys)?;
        Ok(self.server.serve(&format!("v{}.zst", release.version), Answer::File(image)))
    }

    /// Answers `path` as a server or a network does that is not well, and gives the URL for the guest.
    pub fn serve_badly(&self, path: &str, answer: Answer) -> String {
        self.server.serve(path, answer)
    }

    /// How many bytes of files went out under this URL.
    pub fn sent(&self, url: &str) -> u64 {
        self.server.sent(url.rsplit('/').next().unwrap_or_default())
    }

    /// Serves a built image with one bit of the byte at `offset` flipped.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn serve_tampered(&self, lab: &Lab, image: &str, offset: usize) -> Result<String> {
        let mut bytes = std::fs::read(lab.path(image))?;
        *bytes.get_mut(offset).context("the image is too short")? ^= 1;
        let name = format!("tampered-{offset}-{image}");
        std::fs::write(lab.path(&name), bytes)?;
        Ok(self.server.serve(&name, Answer::File(lab.path(&name))))
    }

    /// The boot entries, seen from outside.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn entries(&self) -> Result<Vec<String>> {
        self.esp.entries()
    }

    /// What `ralph-update --json status` says in the guest.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&mut self) -> Result<Value> {
        let text = self.vm.ok("ralph-update --json status")?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// The status once everything that starts at boot has ended, the health check included.
    ///
    /// # Errors
    /// When the guest does not answer, or starts again.
    pub fn settled_status(&mut self) -> Result<Value> {
        self.vm.run("systemctl is-system-running --wait")?;
        self.status()
    }

    /// What `ralph-update --json explain` says in the guest.
    ///
    /// # Errors
    /// When it fails.
    pub fn explain(&mut self) -> Result<Value> {
        let text = self.vm.ok("ralph-update --json explain")?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// The events in the history, oldest first.
    ///
    /// # Errors
    /// When there is none.
    pub fn events(&mut self) -> Result<Vec<String>> {
        let text = self.vm.ok("cat /var/lib/ralph-update/history.jsonl")?;
        text.lines()
            .map(|line| {
                let event: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
                Ok(event["event"].as_str().context("no event")?.to_owned())
            })
            .collect()
    }
}
