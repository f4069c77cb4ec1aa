//! States that nobody thought of, from a seed.

use power_cuts::rng::Rng;

use super::state::{Expect, State};
use crate::ARCH;

/// Tells these numbers from others of the same seed.
const PURPOSE: u64 = 0x10ad;

/// The same seed gives the same state everywhere.
struct Dice(Rng);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0.below(end)
    }

    /// True once in `n`.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

const STEMS: &[&str] = &[
    "a",
    "B",
    "c",
    "linux-5",
    "linux-10",
    "Linux-5",
    "ralphos-a-g1",
    "ralphos-b-g2",
    "ralphos-b-g10",
    "x+1",
    "x",
    "auto-a",
    "AUTO-b",
    ".h",
    "1.0",
    "1~rc1",
    "\u{e4}",
    "[q]",
    "a b",
];
const COUNTERS: &[&str] =
    &["", "", "", "+3-0", "+2-1", "+1-2", "+0-3", "+0-0", "+3", "+0", "+02-1", "+", "+-1", "+1-", "+x"];
const ENDINGS: &[&str] = &[".conf", ".conf", ".conf", ".conf", ".CONF", ".Conf", ".cnf"];
const KEYS: &[&str] =
    &["sort-key", "version", "machine-id", "title", "architecture", "Sort-Key", "linux", "efi", "nonsense"];
const VALUES: &[&str] = &[
    "a", "b", "A", "ralphos", "1", "2", "10", "1.0", "1.00", "1~rc1", "1-1", "1^1", "02", "x64", "X64", "x64", "\"a\"",
    "'a'", "\"x", "a b", "\u{e4}", "# a", "/k", "\\k",
];
const KERNELS: &[&str] = &["/k", "/k", "/k", "/k", "\\k", "//k", "k", "/missing", "\"/k\"", "/K"];
const BLANKS: &[&str] = &[" ", " ", " ", "\t", "  ", " \t"];
const LINE_ENDS: &[&str] = &["\n", "\n", "\n", "\n", "\r\n", "\r", "\n\n", "\n#c\n", "\n \n"];
const PATTERN_PARTS: &[&str] = &[
    "*", "*", "a", "b", "-", "+", "?", "[a-c]", "[0-9]", "[!x]", "[]x]", ".conf", "linux", "ralphos", "\\", "g", "10",
    "1", "x", "[", "A", "\u{e4}",
];

/// The state of a seed.
pub fn state(seed: u64) -> State {
    let dice = &mut Dice(Rng::new(seed, PURPOSE));
    let mut state = State::new(&format!("random {seed}")).expect(Expect::Whatever);
    let mut names: Vec<String> = Vec::new();
    for _ in 0..1 + dice.below(9) {
        let name = [dice.of(STEMS), dice.of(COUNTERS), dice.of(ENDINGS)].concat();
        // FAT has one name for both cases.
        if names.iter().all(|other| other.to_lowercase() != name.to_lowercase()) {
            state = state.entry(&name, content(dice));
            names.push(name);
        }
    }
    if dice.once_in(2) {
        state = state.conf(format!("default{}{}{}", dice.of(BLANKS), pattern(dice, &names), dice.of(LINE_ENDS)));
    }
    if dice.once_in(4) {
        state = state.default(&pattern(dice, &names));
    }
    if dice.once_in(4) {
        state = state.one_shot(&pattern(dice, &names));
    }
    if dice.once_in(4) {
        state = state.last_booted(&pattern(dice, &names));
    }
    state
}

fn content(dice: &mut Dice) -> String {
    let mut text = String::new();
    let kernel_at = dice.below(4);
    for n in 0..4 {
        if n == kernel_at && !dice.once_in(12) {
            let comment = if dice.once_in(12) { "#" } else { "" };
            text += &[comment, "linux", dice.of(BLANKS), dice.of(KERNELS), dice.of(LINE_ENDS)].concat();
        } else if dice.once_in(30) {
            text += "\0";
        } else {
            // An empty value halts some loaders (LDR-10): none is made here.
            let value = dice.of(VALUES).replace("x64", ARCH.efi()).replace("X64", &ARCH.efi().to_uppercase());
            text += &[dice.of(KEYS), dice.of(BLANKS), &value, dice.of(LINE_ENDS)].concat();
        }
    }
    text
}

/// One that may match: a name, a name with a part made general, or anything.
fn pattern(dice: &mut Dice, names: &[String]) -> String {
    let name = &names[dice.below(names.len())];
    match dice.below(6) {
        0 => name.clone(),
        1 => format!("{}*", name.chars().take(1 + dice.below(4)).collect::<String>()),
        2 => format!("*{}", name.chars().skip(dice.below(4)).collect::<String>()),
        3 => "@saved".to_owned(),
        _ => (0..1 + dice.below(4)).map(|_| dice.of(PATTERN_PARTS)).collect(),
    }
}
