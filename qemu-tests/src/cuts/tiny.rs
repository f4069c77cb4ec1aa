//! The tiny guest: kernel, initrd and command line by QEMU itself, the disk under test, our programs, and on the console
//! what they said.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::arch::Arch;
use crate::guest::{self, cpio};
use crate::vm::slots;
use crate::workspace::{self, StaticPrograms};

/// Loads what the disk and its file system need, and starts the program that does the work.
const INIT: &str = "#!/bin/sh
export PATH=/bin DM_DISABLE_UDEV=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o nodev,nosuid,mode=755 run /run
while read -r module; do insmod \"/modules/$module\"; done < /modules/order
cuts-guest
poweroff -n -f
";

/// A failing check, so that a trial is marked bad.
const CHECKS: &str = "[policy]
on-failure = \"mark-bad\"
on-deterministic-failure = \"mark-bad\"

[check.fails]
kind = \"command\"
command = [\"/bin/false\"]
tries = 1
deadline = \"5s\"
";

/// Options of its kernel, besides its architecture's.
const KERNEL_OPTIONS: &str = "rdinit=/cuts-init quiet panic=-1";

/// What the guest runs with.
#[derive(Debug)]
pub struct Tiny<'a> {
    /// What it is.
    pub arch: Arch,
    /// The disk under test, as QEMU's options for it; its block device is `disk`.
    pub disk: Vec<String>,
    /// A second disk.
    pub states: Option<&'a Path>,
    /// What is to be done, for `cuts-guest`.
    pub job: &'a Value,
    /// Further files in `/job`.
    pub files: &'a [(&'a str, &'a Path)],
    /// For the initrd.
    pub dir: &'a Path,
    /// When all must be done.
    pub timeout: Duration,
}

/// A disk without anything between.
pub fn plain_disk(path: &Path) -> Vec<String> {
    vec!["-drive".to_owned(), format!("if=none,id=disk,format=raw,cache=unsafe,file={}", path.display())]
}

/// A disk whose every write and flush goes to `log`, too, in the format of dm-log-writes.
///
/// # Errors
/// When the log cannot be made.
pub fn logged_disk(path: &Path, log: &Path) -> Result<Vec<String>> {
    std::fs::write(log, []).with_context(|| format!("cannot make {}", log.display()))?;
    let nodes = [
        format!("driver=file,filename={},node-name=f0", path.display()),
        "driver=raw,file=f0,node-name=r0".to_owned(),
        format!("driver=file,filename={},node-name=lf", log.display()),
        "driver=blklogwrites,node-name=disk,file=r0,log=lf,log-sector-size=512,log-super-update-interval=1".to_owned(),
    ];
    Ok(nodes.into_iter().flat_map(|node| ["-blockdev".to_owned(), node]).collect())
}

impl Tiny<'_> {
    /// Boots it, and gives what it said when it has said that all is done. `line` sees each line as it comes.
    ///
    /// # Errors
    /// When it does not come to its end in time, or says that it failed.
    pub fn run(&self, line: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
        let _slot = slots::take();
        let initrd = self.initrd()?;
        let base = guest::base(self.arch)?;
        let mut qemu = self.arch.qemu(384);
        qemu.args(["-nic", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&base.linux)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-append", &format!("{KERNEL_OPTIONS} {}", self.arch.kernel_options())])
            .args(&self.disk)
            .args(["-device", "virtio-blk-pci,drive=disk"]);
        if let Some(states) = self.states {
            let drive = format!("if=none,id=states,format=raw,readonly=on,file={}", states.display());
            qemu.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=states"]);
        }
        let said = talk(qemu, self.timeout, line)?;
        let _ = std::fs::remove_file(initrd);
        match said.iter().rev().find(|line| line.starts_with("cuts: done") || line.starts_with("cuts: failed")) {
            Some(line) if line.starts_with("cuts: done") => Ok(said),
            Some(line) => bail!("{line}\n{}", said.join("\n")),
            None => bail!("the guest ended without a word about it:\n{}", said.join("\n")),
        }
    }

    fn initrd(&self) -> Result<PathBuf> {
        let programs = workspace::static_programs(self.arch)?;
        let mut entries: Vec<(String, cpio::Entry)> = Vec::new();
        for folder in ["bin", "job", "var", "etc", "etc/ralph-health-check", "etc/ralph-health-check/checks.d"] {
            entries.push((folder.to_owned(), cpio::Entry::Dir));
        }
        entries.push(("cuts-init".to_owned(), cpio::Entry::File(INIT.into())));
        entries.push(("bin/false".to_owned(), cpio::Entry::Link("busybox".to_owned())));
        let checks = "etc/ralph-health-check/checks.d/50-fails.toml";
        entries.push((checks.to_owned(), cpio::Entry::File(CHECKS.into())));
        entries.push(("job/job.json".to_owned(), cpio::Entry::File(self.job.to_string().into_bytes())));
        let StaticPrograms { update, boot_guard, health_check, cuts_guest, .. } = &programs;
        for program in [update, boot_guard, health_check, cuts_guest] {
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            entries.push((format!("bin/{name}"), cpio::Entry::File(guest::stripped(self.arch, program, self.dir)?)));
        }
        for (name, path) in self.files {
            let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            entries.push((format!("job/{name}"), cpio::Entry::File(content)));
        }
        let guest::Base { fsck_vfat, initrd, .. } = guest::base(self.arch)?;
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        // It needs the C library and nothing else, which the shared initrd has.
        entries.push(("bin/fsck.vfat".to_owned(), cpio::Entry::File(read(&fsck_vfat)?)));
        let mut archive = Vec::new();
        cpio::write(&mut archive, &entries)?;
        archive.extend(read(&initrd)?);
        let path = self.dir.join("tiny-initrd");
        std::fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// Runs QEMU to its end and gives the console's lines.
pub(super) fn talk(mut qemu: Command, timeout: Duration, line: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
    let mut child = Running(qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?);
    let console = child.0.stdout.take().context("QEMU has no standard output")?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + timeout;
    let mut said = Vec::new();
    loop {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(text) => {
                line(&text);
                said.push(text);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("the guest takes more than {timeout:?}:\n{}", said.join("\n")),
        }
    }
    let status = child.0.wait().context("waiting for QEMU")?;
    if !status.success() {
        bail!("QEMU: {status}\n{}", said.join("\n"));
    }
    Ok(said)
}

/// Ends with us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
