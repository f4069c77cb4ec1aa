//! How long each scenario took when it last passed, as a table: `cargo run -p qemu-tests --bin times`.
//!
//! From the folders that the scenarios leave; one that has failed since, or never ran, has a dash, or no row.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use qemu_tests::arch::Arch;
use qemu_tests::lab::TIME;
use qemu_tests::workspace;

/// Of one scenario: its firmware, and its seconds for each architecture.
#[derive(Default)]
struct Row {
    firmware: String,
    seconds: [Option<u64>; Arch::ALL.len()],
}

fn main() -> Result<()> {
    let runs = workspace::cache_dir()?.join("runs");
    let mut rows = BTreeMap::<String, Row>::new();
    for (column, arch) in Arch::ALL.into_iter().enumerate() {
        read(&runs.join(arch.name()), column, &mut rows)?;
    }
    println!("| scenario | firmware |{}", Arch::ALL.map(|arch| format!(" {arch}, s |")).concat());
    println!("|---|---|{}", "---:|".repeat(Arch::ALL.len()));
    for (name, row) in &rows {
        let seconds = row.seconds.map(|found| found.map_or(" – |".to_owned(), |seconds| format!(" {seconds} |")));
        println!("| {name} | {} |{}", row.firmware, seconds.concat());
    }
    let sum = |column: usize| rows.values().filter_map(|row| row.seconds.get(column).copied().flatten()).sum::<u64>();
    let sums: Vec<_> = (0..Arch::ALL.len()).map(|column| format!(" {} |", sum(column))).collect();
    println!("| all {}, side by side | |{}", rows.len(), sums.concat());
    Ok(())
}

/// Adds the column of one architecture.
fn read(folder: &Path, column: usize, rows: &mut BTreeMap<String, Row>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for run in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let run = run?;
        let Ok(text) = std::fs::read_to_string(run.path().join(TIME)) else { continue };
        let (seconds, firmware) = text.trim().split_once(' ').with_context(|| format!("{text:?}: no seconds"))?;
        let row = rows.entry(run.file_name().to_string_lossy().into_owned()).or_default();
        firmware.clone_into(&mut row.firmware);
        if let Some(place) = row.seconds.get_mut(column) {
            *place = Some(seconds.parse().with_context(|| format!("{seconds:?}: no number"))?);
        }
    }
    Ok(())
}
