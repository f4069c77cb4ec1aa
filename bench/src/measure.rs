//! One command, measured.
//!
//! Each measurement is made by a process of its own (`update-bench measure`), which starts one command and waits for it:
//! what the kernel has added up for that process's children is then what this command and all its children cost.
//! That needs no sampling and no tracing, and misses nothing that was waited for.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

/// Lines of the command's messages that are told when it fails.
const LAST_WORDS: usize = 15;

/// What one run cost. Times in seconds, the rest in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// From the start to the end, the flush of the target included.
    pub wall: f64,
    /// User and system time, of the command and all its children.
    pub cpu: f64,
    /// Peak resident memory of the largest process.
    pub rss: u64,
    /// Given to read calls: files, devices and pipes, from the page cache or not.
    pub read: u64,
    /// Read from storage.
    pub disk_read: u64,
    /// Written to storage, or left in the page cache to be written.
    pub disk_written: u64,
    /// Fetched. Filled in by who knows where from.
    #[serde(default)]
    pub fetched: u64,
    /// Requests that a server answered. Filled in by it.
    #[serde(default)]
    pub requests: u64,
    /// The steps that the command told of (`"step"` in lines of JSON on standard error) and how long each took.
    #[serde(default)]
    pub steps: Vec<(String, f64)>,
}

impl Sample {
    /// What it would have taken without reading back; `None` where nothing told of that step.
    pub fn without_read_back(&self) -> Option<f64> {
        let (_, read_back) = self.steps.iter().find(|(name, _)| name == "read-back")?;
        Some(self.wall - read_back)
    }
}

/// Runs `command` and flushes `flush` after it, which counts: some programs leave that to others.
///
/// # Errors
/// When it cannot be started or fails; the message has its last words.
pub fn measure(command: &[String], flush: Option<&Path>) -> Result<Sample> {
    let (program, args) = command.split_first().ok_or_else(|| anyhow!("no command to measure"))?;
    let before = Counters::now()?;
    let begin = Instant::now();
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let stderr = child.stderr.take().ok_or_else(|| anyhow!("no standard error"))?;
    let listener = std::thread::spawn(move || listen(BufReader::new(stderr), begin));
    let status = child.wait().with_context(|| format!("cannot wait for {program}"))?;
    let ended = begin.elapsed().as_secs_f64();
    let after = Counters::now()?;
    if let Some(path) = flush {
        File::open(path)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("cannot flush {}", path.display()))?;
    }
    let wall = begin.elapsed().as_secs_f64();
    let heard = listener.join().map_err(|_| anyhow!("the listener panicked"))?;
    if !status.success() {
        bail!("{}: {status}\n{}", command.join(" "), heard.last.join("\n"));
    }
    Ok(Sample {
        wall,
        cpu: after.cpu - before.cpu,
        rss: after.rss,
        read: after.io.read - before.io.read,
        disk_read: after.io.disk_read - before.io.disk_read,
        disk_written: after.io.disk_written - before.io.disk_written,
        fetched: 0,
        requests: 0,
        steps: durations(&heard.steps, ended),
    })
}

/// What the kernel has added up for the children of this process.
struct Counters {
    cpu: f64,
    rss: u64,
    io: Io,
}

impl Counters {
    fn now() -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("cannot ask what the children used")?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let text = std::fs::read_to_string("/proc/self/io").context("cannot read /proc/self/io")?;
        Ok(Self {
            cpu: micros as f64 / 1e6,
            rss: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
            io: Io::parse(&text).context("/proc/self/io is not as expected")?,
        })
    }
}

/// `/proc/PID/io`, which holds the children that were waited for.
#[derive(Debug, PartialEq)]
struct Io {
    read: u64,
    disk_read: u64,
    disk_written: u64,
}

impl Io {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.trim().parse::<u64>().ok())
        };
        Some(Self { read: field("rchar")?, disk_read: field("read_bytes")?, disk_written: field("write_bytes")? })
    }
}

/// What a command said on standard error.
#[derive(Default)]
struct Heard {
    /// Each step's name and when it began, in seconds.
    steps: Vec<(String, f64)>,
    last: Vec<String>,
}

fn listen(lines: impl BufRead, begin: Instant) -> Heard {
    let mut heard = Heard::default();
    for line in lines.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(step) = step_of(&line) {
            if heard.steps.last().is_none_or(|(last, _)| *last != step) {
                heard.steps.push((step, begin.elapsed().as_secs_f64()));
            }
            continue;
        }
        if heard.last.len() == LAST_WORDS {
            heard.last.remove(0);
        }
        heard.last.push(line);
    }
    heard
}

/// The step that a line of progress is about, as `ralph-update apply --progress json` writes it.
fn step_of(line: &str) -> Option<String> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(event.get("step")?.as_str()?.to_owned())
}

/// From when each step began to how long it took.
fn durations(begins: &[(String, f64)], end: f64) -> Vec<(String, f64)> {
    let ends = begins.iter().skip(1).map(|(_, at)| *at).chain([end]);
    begins.iter().zip(ends).map(|((name, at), end)| (name.clone(), end - at)).collect()
}

/// Measures in a process of its own.
///
/// # Errors
/// As [`measure`].
pub fn measure_apart(command: &[String], flush: Option<&Path>, one_core: bool) -> Result<Sample> {
    let exe = std::env::current_exe().context("cannot tell where this program lies")?;
    let mut apart = Command::new("taskset");
    if one_core {
        apart.args(["-c", "0"]).arg(exe);
    } else {
        apart = Command::new(exe);
    }
    apart.arg("measure");
    if let Some(path) = flush {
        apart.arg("--flush").arg(path);
    }
    let output = apart.arg("--").args(command).stdin(Stdio::null()).output().context("cannot measure apart")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    serde_json::from_slice(&output.stdout).context("the measuring process wrote no sample")
}

/// Arguments of `update-bench measure`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Flushed when the command is done; the clock runs until then.
    #[arg(long, value_name = "FILE")]
    flush: Option<PathBuf>,
    /// What to measure.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// `update-bench measure`: writes one [`Sample`] as JSON on standard output.
///
/// # Errors
/// As [`measure`].
pub fn run(args: &Args) -> Result<()> {
    let sample = measure(&args.command, args.flush.as_deref())?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read() {
        let text =
            "rchar: 10\nwchar: 20\nsyscr: 1\nsyscw: 2\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n";
        assert_eq!(Io::parse(text), Some(Io { read: 10, disk_read: 4096, disk_written: 8192 }));
        assert_eq!(Io::parse("rchar: 10\n"), None);
        assert!(Io::parse(&std::fs::read_to_string("/proc/self/io").unwrap()).is_some());
    }

    #[test]
    fn a_step_lasts_until_the_next_one_begins() {
        let begins = [("check".to_owned(), 0.5), ("write".to_owned(), 1.0), ("stage".to_owned(), 3.0)];
        let lasted = durations(&begins, 3.25);
        assert_eq!(lasted, [("check".to_owned(), 0.5), ("write".to_owned(), 2.0), ("stage".to_owned(), 0.25)]);
        assert!(durations(&[], 1.0).is_empty());
    }

    #[test]
    fn progress_is_told_apart_from_other_words() {
        let lines = "{\"event\":\"progress\",\"step\":\"write\"}\n{\"event\":\"progress\",\"step\":\"write\",\"done\":5}\nhello\n{}\n";
        let heard = listen(lines.as_bytes(), Instant::now());
        assert_eq!(heard.steps.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["write"]);
        assert_eq!(heard.last, ["hello", "{}"]);
    }

    #[test]
    fn children_of_children_count() {
        let script = "head -c 3000000 /dev/zero | cat > /dev/null; echo '{\"step\":\"a\"}' >&2";
        let sample = measure(&["sh".into(), "-c".into(), script.into()], None).unwrap();
        assert!(sample.read >= 6_000_000, "{sample:?}");
        assert!(sample.rss > 100_000 && sample.wall > 0.0, "{sample:?}");
        assert_eq!(sample.steps[0].0, "a");
    }

    #[test]
    fn a_command_that_fails_is_told_with_its_last_words() {
        let error = measure(&["sh".into(), "-c".into(), "echo no room >&2; exit 7".into()], None).unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
    }
}
