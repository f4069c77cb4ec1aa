//! What machine and kernel say of themselves, for evidence (HLT-40): the end of the kernel's log, and how the boot before this one ended.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use updater::evidence::PreviousEnd;

use super::evidence::tail;
use crate::limit;
use crate::process::{self, End};

/// Bytes of the kernel's log that are kept.
const KERNEL_LOG: usize = 8 << 10;
/// Bytes of the previous boot's end that are kept.
const PREVIOUS: usize = 4 << 10;
/// How long each may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest record that `/dev/kmsg` gives (the kernel's `CONSOLE_EXT_LOG_MAX`, and below it).
const RECORD: usize = 8192;
/// Asked for the previous boot's end.
const JOURNALCTL: &str = "/usr/bin/journalctl";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces {
    /// The last 8 KiB of the kernel's log; empty if it cannot be read.
    pub kernel_log: String,
    /// How the boot before this one ended, if anything kept it.
    pub previous_end: Option<PreviousEnd>,
}

impl Traces {
    /// Of the machine below `root`. Whatever cannot be read, or not in time, is left out.
    pub fn gather(root: &Path, within: Duration) -> Self {
        let until = Instant::now() + within;
        let patience = || until.saturating_duration_since(Instant::now()).min(PATIENCE);
        let (kmsg, pstore, limit) = (root.join("dev/kmsg"), root.join("sys/fs/pstore"), patience());
        // A log that does not end is read for half of that, so that what was read is still handed over.
        let kernel_log = limit::within(limit, move || kernel_log(&kmsg, limit / 2)).unwrap_or_default();
        let pstore = limit::within(patience(), move || pstore_end(&pstore)).ok().flatten();
        let text = pstore.map(|text| ("pstore", text));
        let journal = root.join("var/log/journal");
        let text = text.or_else(|| journal_end(move || journal.is_dir(), &patience).map(|text| ("journal", text)));
        let previous_end = text.map(|(source, text)| PreviousEnd { source: source.to_owned(), text });
        Self { kernel_log, previous_end }
    }
}

/// Reads `/dev/kmsg` without waiting for what is not there yet; every read gives one record.
fn kernel_log(path: &Path, patience: Duration) -> String {
    let flags = OFlag::O_NONBLOCK.bits();
    let Ok(mut log) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return String::new() };
    let (mut lines, mut bytes) = (VecDeque::new(), 0);
    let mut record = [0; RECORD];
    let until = Instant::now() + patience;
    // A kernel that logs faster than we read must not hold us.
    while Instant::now() < until {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(read) => {
                let Some(line) = line(&String::from_utf8_lossy(&record[..read])) else { continue };
                bytes += line.len();
                lines.push_back(line);
                while bytes > KERNEL_LOG && lines.len() > 1 {
                    bytes -= lines.pop_front().map_or(0, |line| line.len());
                }
            }
            // EPIPE: what we were to read was overwritten; the next read goes on behind it.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
    }
    let text: String = lines.into_iter().collect();
    tail(&text, KERNEL_LOG).to_owned()
}

/// A record of `/dev/kmsg`, `priority,number,microseconds,flags;text` and lines of properties, as `dmesg` shows it.
fn line(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next()?;
    Some(format!("[{:5}.{:06}] {text}\n", micros / 1_000_000, micros % 1_000_000))
}

/// The end of what the kernel kept of a crash, from its newest file.
fn pstore_end(folder: &Path) -> Option<String> {
    let mut files: Vec<(Reverse<std::time::SystemTime>, PathBuf)> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            // What could not be unpacked says nothing to a person.
            let readable = meta.is_file() && !entry.file_name().to_string_lossy().ends_with(".enc.z");
            readable.then_some((Reverse(meta.modified().ok()?), entry.path()))
        })
        .collect();
    // Of the parts of one dump the first holds the end of the log.
    files.sort();
    files.iter().find_map(|(_, path)| file_end(path).filter(|text| !text.trim().is_empty()))
}

fn file_end(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(PREVIOUS as u64))).ok()?;
    let mut end = Vec::new();
    file.take(PREVIOUS as u64).read_to_end(&mut end).ok()?;
    Some(tail(&String::from_utf8_lossy(&end), PREVIOUS).to_owned())
}

/// The last lines of the previous boot, where a journal is kept over a reboot.
fn journal_end(is_kept: impl FnOnce() -> bool + Send + 'static, patience: &dyn Fn() -> Duration) -> Option<String> {
    // Without a folder for it journalctl would not know of another boot; not asking spares the time. To look may hang as `/var` does.
    if !limit::within(patience(), is_kept).unwrap_or(false) {
        return None;
    }
    let args = ["--quiet", "--no-pager", "-b", "-1", "-o", "short-monotonic", "-n", "40"].map(str::to_owned);
    let ended = process::run(Path::new(JOURNALCTL), &args, patience()).ok()?;
    let said = ended.end == End::Code(0) && !ended.output.trim().is_empty();
    said.then(|| tail(&ended.output, PREVIOUS).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_kernels_log_is_one_line_hlt_40() {
        let record = "6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n DEVICE=+net:lo\n";
        assert_eq!(line(record).unwrap(), "[    5.140900] NET: Registered protocol family 10\n");
        assert_eq!(
            line("30,340,5690716,-,caller=T1;udevd[80]: starting\n").unwrap(),
            "[    5.690716] udevd[80]: starting\n"
        );
        for broken in ["", ";", "6,339;text", "6,339,x,-;text", "no semicolon"] {
            assert_eq!(line(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn the_newest_pstore_file_tells_how_the_last_boot_ended_hlt_40() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(pstore_end(folder.path()), None);
        let put = |name: &str, text: &str, age: u64| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            let time = std::time::SystemTime::now() - Duration::from_secs(age);
            File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        put("dmesg-ramoops-0", "an old crash", 3600);
        put("dmesg-efi_pstore-170000000001001", &format!("{}Kernel panic", "x".repeat(5000)), 10);
        put("dmesg-efi_pstore-170000000099001.enc.z", "packed", 1);
        let end = pstore_end(folder.path()).unwrap();
        assert!(end.len() == PREVIOUS && end.ends_with("xKernel panic"), "{}", end.len());
        assert_eq!(pstore_end(Path::new("/nonexistent")), None);
    }

    #[test]
    fn what_cannot_be_read_is_left_out_hlt_40() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Traces::gather(root.path(), PATIENCE * 3), Traces::default());
        // A pipe that nobody writes to: opened and read without waiting.
        fs::create_dir(root.path().join("dev")).unwrap();
        nix::unistd::mkfifo(&root.path().join("dev/kmsg"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Traces::gather(root.path(), PATIENCE * 3), Traces::default());
    }

    #[test]
    fn a_var_that_hangs_is_not_waited_for_hlt_42() {
        let hangs = || {
            std::thread::sleep(Duration::from_secs(3600));
            true
        };
        let begin = Instant::now();
        assert_eq!(journal_end(hangs, &|| Duration::from_millis(100)), None);
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn what_is_gathered_has_one_limit_for_all_hlt_42() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("dev/kmsg", "6,1,2000000,-;hello\n");
        put("sys/fs/pstore/dmesg-efi_pstore-1", "Kernel panic");
        assert_eq!(Traces::gather(root.path(), Duration::ZERO), Traces::default());
        let traces = Traces::gather(root.path(), PATIENCE * 3);
        assert_eq!(traces.kernel_log, "[    2.000000] hello\n");
        assert_eq!(traces.previous_end.unwrap().text, "Kernel panic");
    }

    #[test]
    fn of_a_kernel_log_that_does_not_end_what_was_read_is_kept_hlt_42() {
        // One record, and a hole that takes minutes to read: a kernel that logs faster than we read.
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        let path = root.path().join("dev/kmsg");
        fs::write(&path, "6,1,2000000,-;hello\n").unwrap();
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        let begin = Instant::now();
        assert_eq!(Traces::gather(root.path(), Duration::from_secs(2)).kernel_log, "[    2.000000] hello\n");
        assert!(begin.elapsed() >= Duration::from_secs(1), "the log has ended: {:?}", begin.elapsed());
    }

    #[test]
    fn the_end_of_a_long_kernel_log_is_kept_hlt_40() {
        // A file gives more than a record at once; only its first is taken, so this is what one long record leaves.
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("kmsg");
        fs::write(&path, format!("6,1,2000000,-;{}", "x".repeat(6000))).unwrap();
        let log = kernel_log(&path, PATIENCE);
        assert!(log.starts_with("[    2.000000] xxx") && log.ends_with("x\n"), "{log}");
    }
}
