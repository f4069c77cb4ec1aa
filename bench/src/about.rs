//! What stands above the tables: the machine, the images, the programs.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use qemu_tests::setup;

use crate::lab::Lab;
use crate::table::median;

/// How often `ralph-update status` is run.
const STATUS_RUNS: usize = 20;

/// How the measurement was made.
#[derive(Debug)]
pub struct How {
    /// Rounds.
    pub rounds: usize,
    /// On one processor core.
    pub one_core: bool,
    /// Milliseconds that each answer of the server was late by.
    pub latency: u64,
    /// Threads that were asked for.
    pub workers: Option<usize>,
}

/// All that a reader must know of the machine, the images and the programs, before the first round.
///
/// # Errors
/// When a program does not run.
pub fn about(lab: &Lab, how: &How) -> Result<String> {
    let mut text = String::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let core = if how.one_core { ", on one of them" } else { "" };
    writeln!(text, "{}, {cores} cores{core}, Linux {}", processor(), kernel.trim_end())?;
    writeln!(text, "{} rounds, medians; load before {}", how.rounds, load())?;
    writeln!(
        text,
        "v2: {} of {} bytes, {} packages newer than v1; one zstd stream {}; ours {}",
        lab.fs.name(),
        len(&lab.roots.v2),
        lab.roots.upgraded,
        len(&lab.path("v2.zst")),
        images(lab)?,
    )?;
    writeln!(text, "{}", versions()?)?;
    let sizes: Vec<_> = lab.programs.all().map(|path| format!("{} {}", name(path), len(path))).collect();
    writeln!(text, "programs, stripped, bytes: {}", sizes.join(", "))?;
    let workers = how.workers.map_or_else(
        || "as many as ralph-update chooses: one more than it has processors, within IMG-60".to_owned(),
        |workers| workers.to_string(),
    );
    writeln!(text, "workers: {workers}; each answer of the server {} ms late", how.latency)?;
    writeln!(text, "ralph-update status: {:.1} ms, median of {STATUS_RUNS}", status(lab)? * 1e3)?;
    Ok(text)
}

/// Length of every image and delta of ours that was made.
fn images(lab: &Lab) -> Result<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(lab.path("")).context("cannot list what was made")? {
        let path = entry?.path();
        let name = name(&path);
        if name.starts_with("v2") && name.ends_with(".ralph.zst") || name.ends_with(".ralph-delta") {
            found.push(format!("{name} {}", len(&path)));
        }
    }
    found.sort();
    Ok(found.join(", "))
}

/// Seconds that `ralph-update status` takes on the benchmark's disk.
fn status(lab: &Lab) -> Result<f64> {
    let mut command = Command::new(&lab.programs.update);
    command.arg("--disk").arg(lab.path("disk.raw")).arg("status");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut times = Vec::new();
    // Once more than is counted: the first one reads the program from the disk.
    for _ in 0..=STATUS_RUNS {
        let begin = Instant::now();
        let ended = command.status().context("cannot run ralph-update status")?;
        times.push(begin.elapsed().as_secs_f64());
        // 3 and the like tell of the disk; 1 and 2 are of one that could not be read, or of a wrong call.
        if matches!(ended.code(), Some(1 | 2) | None) {
            bail!("ralph-update status: {ended}");
        }
    }
    Ok(median(times.split_off(1)))
}

fn versions() -> Result<String> {
    let packages = ["zstd", "swupdate", "rauc", "casync", "erofs-utils", "e2fsprogs"];
    let mut query = setup::command("dpkg-query");
    let versions = setup::run(query.args(["-W", "-f", "${Package} ${Version}, "]).args(packages));
    let versions = versions.context("cannot ask for the peers' versions")?;
    Ok(String::from_utf8_lossy(&versions).trim_end_matches(", ").to_owned())
}

fn len(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The processor's name for itself.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.to_owned())
}

/// Load averages of one and five minutes.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
