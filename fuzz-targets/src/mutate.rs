//! Blind mutation: what can be had without a fuzzer. It finds what lies near the seeds; `../fuzz` finds the rest.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use crate::{TARGETS, Target};

/// Words that mean something in one of the formats.
const WORDS: [&[u8]; 26] = [
    b"\0",
    b"\xFF",
    b"\n",
    b"\r\n",
    b" ",
    b"\"",
    b"\\u0000",
    b"/",
    b"..",
    b"+3-0",
    b"-g1",
    b".conf",
    b"ralphos-",
    b"linux /",
    b"options ",
    b"RALPHIMG",
    b"\x5A\x2A\x4D\x18",
    b"\x28\xB5\x2F\xFD",
    b"EFI PART",
    b"roothash=",
    b"HTTP/1.1 200",
    b"Content-Length: ",
    b"{",
    b"[",
    b"18446744073709551616",
    b"\x55\xAA",
];
const NUMBERS: [u64; 12] =
    [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, u64::MAX >> 1, u64::MAX];

/// Repeatable chance (xorshift*).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Less than `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// One of the seeds, changed in one to eight places.
pub fn mutated(seeds: &[Vec<u8>], max_len: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(8) {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below((bytes.len() - at).min(64) + 1);
        match random.below(9) {
            0 | 1 if !bytes.is_empty() => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            2 if at < bytes.len() => bytes[at] = random.next() as u8,
            3 => drop(bytes.drain(at..end)),
            4 => drop(bytes.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            5 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            6 => {
                let number = NUMBERS[random.below(NUMBERS.len())].wrapping_add(random.next() % 3).wrapping_sub(1);
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
            }
            7 => {
                let other = &seeds[random.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            _ => bytes.truncate(end.max(1)),
        }
    }
    bytes.truncate(max_len);
    bytes
}

/// The folder of inputs that are kept for a target: the seeds, and what once failed.
pub fn kept(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target.name)
}

/// All inputs of that folder, in the order of their names.
///
/// # Panics
/// When it cannot be read.
pub fn read_kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = kept(target);
    let listing = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = listing.map(|item| item.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).collect()
}

thread_local! {
    static TRIED: RefCell<(&'static str, Vec<u8>)> = const { RefCell::new(("", Vec::new())) };
}

/// When a target panics, saves the input and tells how to replay it; also where a panic ends the program at once.
pub fn save_failures() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        before(info);
        TRIED.with_borrow(|(name, input)| {
            if name.is_empty() {
                return;
            }
            let path = env::temp_dir().join(format!("fuzz-{name}-{:016x}", fingerprint(input)));
            let saved = fs::write(&path, input);
            let replay = format!("cargo run -p fuzz-targets -- replay {name} {}", path.display());
            eprintln!("the input has {} bytes ({saved:?}); again with: {replay}", input.len());
        });
    }));
}

fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Runs a target on an input that is saved if it fails.
pub fn run(target: &Target, input: &[u8]) {
    TRIED.set((target.name, input.to_vec()));
    (target.run)(input);
    TRIED.set(("", Vec::new()));
}

/// Runs a target on its kept inputs, then on mutations of them until the time is over; but not fewer than `runs.start`, however slow the
/// machine is, and not more than `runs.end`. How many mutations it were.
pub fn shake(target: &Target, seed: u64, time: Duration, runs: Range<u64>) -> u64 {
    let (mut random, seeds) = (Random::new(seed), read_kept(target));
    seeds.iter().for_each(|seed| run(target, seed));
    let (began, mut done) = (Instant::now(), 0);
    while done < runs.start || done < runs.end && began.elapsed() < time {
        run(target, &mutated(&seeds, target.max_len, &mut random));
        done += 1;
    }
    done
}

/// The targets of these names; all of them for none.
///
/// # Errors
/// Names what is no target.
pub fn named(names: &[String]) -> Result<Vec<Target>, String> {
    if names.is_empty() {
        return Ok(TARGETS.to_vec());
    }
    names.iter().map(|name| crate::target(name).ok_or_else(|| format!("{name} is no target"))).collect()
}
