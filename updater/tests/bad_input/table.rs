//! The table of attacks, run over the real `apply` and held against the table in the rule book.

use std::collections::{BTreeMap, BTreeSet};

use updater::config::Policy;

use crate::lab::{Lab, good_spec, specification};
use crate::parts::{Plain, key, trust};
use crate::{attacks, deltas, signed};

/// One attack, in as many files as it takes.
pub struct Attack {
    pub name: &'static str,
    /// `reason/cause`, or several where the file decides which it is.
    pub expected: &'static str,
    /// What varies, and the file.
    pub files: Vec<(String, Vec<u8>)>,
    /// Numbers of the trusted keys, and how many must have signed.
    pub trust: (&'static [u8], usize),
    pub policy: Policy,
}

impl Attack {
    pub fn files(name: &'static str, expected: &'static str, files: Vec<(String, Vec<u8>)>) -> Self {
        Attack { name, expected, files, trust: (&[1], 1), policy: Policy::default() }
    }

    pub fn file(name: &'static str, expected: &'static str, file: Vec<u8>) -> Self {
        Self::files(name, expected, vec![(String::new(), file)])
    }

    pub fn trusting(self, keys: &'static [u8], threshold: usize) -> Self {
        Attack { trust: (keys, threshold), ..self }
    }

    pub fn on(self, policy: Policy) -> Self {
        Attack { policy, ..self }
    }
}

/// Chance that can be repeated (xorshift).
pub struct Random(pub u64);

impl Random {
    /// Less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// The seed is in the environment, or a new one each day; a failure prints it.
fn random() -> Random {
    let days = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let seed = std::env::var("BAD_INPUT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(days);
    println!("BAD_INPUT_SEED={seed}");
    Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
}

fn all() -> Vec<Attack> {
    let mut all = deltas::all();
    all.extend(attacks::all(&mut random()));
    all.extend(signed::all());
    all
}

#[test]
fn thr_14_every_attack_is_refused_with_its_reason_and_changes_nothing() {
    let lab = Lab::new();
    for attack in all() {
        let trust = trust(attack.trust.0, attack.trust.1);
        let expected: BTreeSet<&str> = attack.expected.split(' ').collect();
        assert!(!attack.files.is_empty());
        for (which, file) in &attack.files {
            let told = format!("{} {which}", attack.name);
            let ending = lab.refusal(&told, file, &trust, &attack.policy);
            let found = ending.told();
            assert!(expected.contains(found.as_str()), "{told}: {found}, expected {}", attack.expected);
            assert_eq!(ending.exit, if ending.reason == "fenced" { 1 } else { 3 }, "{told}");
        }
    }
    // The files were refused for what was done to them: as it was, the image is taken.
    let good = Plain::small().build(&good_spec(), &[key(1)]);
    for good in [good, deltas::good_delta()] {
        lab.put_back();
        lab.apply(&good, &trust(&[1], 1), &Policy::default()).unwrap();
        assert_eq!(lab.next_boot(), "ralphos-a-g3+3-0.conf");
    }
}

#[test]
fn thr_14_the_table_in_the_rule_book_is_this_one() {
    let text = specification("threat-model.md");
    let rows: BTreeMap<String, String> = text
        .lines()
        .skip_while(|line| !line.starts_with("| attack | reason/cause |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            (cells.next().unwrap().to_owned(), cells.next().unwrap().replace('`', ""))
        })
        .collect();
    let ours: BTreeMap<String, String> =
        all().into_iter().map(|attack| (attack.name.to_owned(), attack.expected.to_owned())).collect();
    let print = |rows: &BTreeMap<String, String>| {
        rows.iter().map(|(name, expected)| format!("| {name} | `{expected}` |\n")).collect::<String>()
    };
    assert_eq!(print(&rows), print(&ours));
}
