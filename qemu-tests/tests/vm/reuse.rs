//! What a slot holds is not fetched again (SLM-3, SLM-4): power is cut in the middle of an update from a URL, the second try takes up what
//! is there, and the next update takes most of itself from the running slot. In both a slot has lost a bit that its map claims: the bytes are
//! found to be others and fetched (SLM-2).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::scenario;
use anyhow::{Context, Result, ensure};
use image_format::{Chunk, Digest, UnverifiedImage};
use qemu_tests::esp::partition;
use qemu_tests::guest::Release;
use qemu_tests::http::Answer;
use qemu_tests::lab::Lab;
use qemu_tests::machine::{Machine, Off};
use qemu_tests::vm::BOOT_TIMEOUT;
use serde_json::Value;

use crate::common::committed;

/// Where the ballast lies in a release.
const BALLAST: &str = "usr/share/ballast";
/// So much of an image goes out before the server falls silent.
const FIRST_PART: u64 = 20 << 20;
/// So much of the slot is waited for then, from its beginning.
const ARRIVED: u64 = 8 << 20;

#[test]
fn an_update_that_was_cut_goes_on_and_the_next_one_comes_mostly_from_the_running_slot() -> Result<()> {
    scenario("reuse", |lab| {
        let ballast = ballast();
        let second = Release::new("2.0.0").without_sandbox_check().with_file(BALLAST, &ballast);
        let third = Release::new("3.0.0")
            .without_sandbox_check()
            .with_file(BALLAST, &ballast)
            .with_file("usr/share/new", "since 3.0.0\n");
        let mut machine = Off::new(lab)?.start()?;
        machine.vm.wait_boot(BOOT_TIMEOUT)?;
        machine.settled_status()?;

        // It has forgotten what it was delivered with, so that there is much to fetch. The server falls silent, and then the power fails.
        machine.vm.ok("rm /var/lib/ralph-update/slots/a.map")?;
        machine.serve(lab, &second)?;
        let url = machine.serve_badly("silent.zst", Answer::FallsSilent(lab.path("v2.0.0.zst"), FIRST_PART));
        let new = Root::of(&lab.path("v2.0.0.zst"))?;
        machine.vm.start_script(&format!("ralph-update apply {url}"))?;
        let disk = lab.path("disk.raw");
        let slot = Slot::on(&disk, "SYSTEM_B")?;
        new.wait_for(&slot, ARRIVED)?;
        let off = Off::unplugged(lab, machine)?;
        assert_eq!(off.esp.entries()?, ["ralphos-a-g1.conf"]);
        let lost = new.chunk_at(ARRIVED / 2)?;
        slot.flip_bit(lost.plain_offset + 1000)?;

        // Nothing is fetched that is in place, but the one chunk of which that only seems so.
        let there = new.in_place(&slot)?;
        let (there_plain, there_encoded) = lengths(&there);
        ensure!(there_plain > ARRIVED - (4 << 20) && !there.contains(&lost), "{there_plain} bytes are there");
        let mut machine = off.start()?;
        machine.vm.wait_boot(BOOT_TIMEOUT)?;
        machine.settled_status()?;
        let bytes = apply(&mut machine, &second, lab)?;
        let (_, all) = lengths(&new.chunks);
        assert_eq!(bytes.in_place, there_plain, "{bytes:?}");
        ensure!(bytes.missed >= u64::from(lost.plain_len), "nobody noticed: {bytes:?}");
        assert_eq!(bytes.fetched + there_encoded, all, "{bytes:?}");
        assert_eq!(new.in_place(&slot)?, new.chunks, "the slot is not whole");
        assert_eq!(machine.vm.reboot()?.slot, "b");
        committed(&mut machine)?;

        // A bit of the running slot flips where nobody reads, which its map does not know.
        let running = Root::of(&lab.path("v2.0.0.zst"))?;
        let at = find(&lab.path("v2.0.0/root.erofs"), &ballast.as_bytes()[50_000..50_200])?;
        slot.flip_bit(at)?;
        let lost = running.chunk_at(at)?;
        let bytes = apply(&mut machine, &third, lab)?;
        let new = Root::of(&lab.path("v3.0.0.zst"))?;
        let (_, all) = lengths(&new.chunks);
        ensure!(new.chunks.iter().any(|chunk| chunk.plain_sha256 == lost.plain_sha256), "the ballast is cut otherwise");
        assert_eq!((bytes.in_place, bytes.missed), (0, u64::from(lost.plain_len)), "{bytes:?}");
        assert_eq!(bytes.reused, new.shared_with(&running, &lost), "{bytes:?}");
        ensure!(bytes.fetched * 4 < all, "{all} bytes of root, {bytes:?}");
        assert_eq!(new.in_place(&Slot::on(&disk, "SYSTEM_A")?)?, new.chunks, "the slot is not whole");
        assert_eq!(machine.vm.reboot()?.slot, "a");
        let status = machine.settled_status()?;
        assert_eq!(status["slots"]["a"]["state"], "committed", "{status:#}");
        assert_eq!(status["slots"]["a"]["version"], "3.0.0");
        assert_eq!(machine.vm.ok(&format!("tail -c +50001 /{BALLAST} | head -c 200"))?, ballast[50_000..50_200]);
        Ok(())
    })
}

/// Where root came from (IFC-6).
#[derive(Debug)]
struct Bytes {
    fetched: u64,
    in_place: u64,
    reused: u64,
    missed: u64,
}

/// Applies a release in the guest, from a server that counts. What it says it has received is what went out.
fn apply(machine: &mut Machine, release: &Release, lab: &Lab) -> Result<Bytes> {
    let url = machine.serve(lab, release)?;
    let text = machine.vm.ok(&format!("ralph-update --json apply {url}"))?;
    let summary: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
    let number = |name: &str| summary["bytes"][name].as_u64().with_context(|| format!("no bytes.{name}: {summary:#}"));
    let bytes = Bytes {
        fetched: number("fetched")?,
        in_place: number("in_place")?,
        reused: number("reused")?,
        missed: number("missed")?,
    };
    let (received, sent) = (number("received")?, machine.sent(&url));
    eprintln!("{url}: {bytes:?}, {received} received, {sent} sent");
    assert_eq!(received, sent, "{bytes:?}");
    Ok(bytes)
}

/// The root of an image: its chunks, by the table.
struct Root {
    chunks: Vec<Chunk>,
}

impl Root {
    fn of(image: &Path) -> Result<Self> {
        let head = UnverifiedImage::read_head(File::open(image)?)?;
        let chunks = head.claims()?.chunks.into_iter().filter(|chunk| chunk.payload == 0).collect();
        Ok(Self { chunks })
    }

    /// The chunk with this byte of root.
    fn chunk_at(&self, at: u64) -> Result<Chunk> {
        let has = |chunk: &&Chunk| (chunk.plain_offset..chunk.plain_offset + u64::from(chunk.plain_len)).contains(&at);
        self.chunks.iter().find(has).copied().context("root has no such byte")
    }

    /// Those that the slot holds.
    fn in_place(&self, slot: &Slot) -> Result<Vec<Chunk>> {
        let mut held = Vec::new();
        for chunk in &self.chunks {
            if slot.holds(chunk)? {
                held.push(*chunk);
            }
        }
        Ok(held)
    }

    /// Waits until the slot holds the first so many bytes.
    fn wait_for(&self, slot: &Slot, bytes: u64) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(300);
        for chunk in self.chunks.iter().take_while(|chunk| chunk.plain_offset < bytes) {
            while !slot.holds(chunk)? {
                ensure!(Instant::now() < end, "the slot is not written to at {}", chunk.plain_offset);
                sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }

    /// Plain bytes of the chunks that `other` has, too, somewhere; without `lost`.
    fn shared_with(&self, other: &Self, lost: &Chunk) -> u64 {
        let has = |chunk: &&Chunk| other.chunks.iter().any(|theirs| theirs.plain_sha256 == chunk.plain_sha256);
        let kept = |chunk: &&Chunk| chunk.plain_sha256 != lost.plain_sha256;
        self.chunks.iter().filter(has).filter(kept).map(|chunk| u64::from(chunk.plain_len)).sum()
    }
}

/// Plain and encoded.
fn lengths(chunks: &[Chunk]) -> (u64, u64) {
    let plain = chunks.iter().map(|chunk| u64::from(chunk.plain_len)).sum();
    (plain, chunks.iter().map(|chunk| u64::from(chunk.encoded_len)).sum())
}

/// A slot of a disk, seen from outside, whether the machine runs or not.
struct Slot {
    disk: File,
    start: u64,
}

impl Slot {
    fn on(disk: &Path, label: &str) -> Result<Self> {
        let start = partition(disk, label)?;
        let disk = File::options().read(true).write(true).open(disk)?;
        Ok(Self { disk, start })
    }

    fn holds(&self, chunk: &Chunk) -> Result<bool> {
        let mut bytes = vec![0; chunk.plain_len as usize];
        self.disk.read_exact_at(&mut bytes, self.start + chunk.plain_offset)?;
        Ok(Digest::of(&bytes) == chunk.plain_sha256)
    }

    fn flip_bit(&self, at: u64) -> Result<()> {
        let mut byte = [0];
        self.disk.read_exact_at(&mut byte, self.start + at)?;
        self.disk.write_all_at(&[byte[0] ^ 4], self.start + at)?;
        Ok(())
    }
}

/// Where these bytes stand in a file.
fn find(file: &Path, bytes: &[u8]) -> Result<u64> {
    let content = std::fs::read(file)?;
    let at = content.windows(bytes.len()).position(|window| window == bytes);
    Ok(at.context("erofs has made the ballast shorter")? as u64)
}

/// Text in which lz4 finds nothing twice: erofs keeps it as it is.
fn ballast() -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state >> 40) as u8 % 64)
    };
    (0..256 << 10).map(|_| letter()).collect()
}
