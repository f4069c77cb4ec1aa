//! What is done to a machine, and what may be cut: each flow's beginning, the operation, and how it must end.

use serde_json::{Value, json};

use super::twins::Chain;

/// Versions from this one on have a unified kernel image in place of kernel and initrd.
pub const UNIFIED: u32 = 100;

/// What makes a disk with a committed 1.0.0 in slot A (generation 1) the one that a flow starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// Applies version N.0.0 by the host's `ralph-update --disk`.
    Apply(u32),
    /// Commits what is staged.
    Commit,
    /// Puts systemd-boot 252 in the place of the boot loader.
    OlderLoader,
    /// Gives an entry another name.
    Rename(&'static str, &'static str),
    /// Gives an entry a second name (LDR-7).
    Twin(&'static str, &'static str, Chain),
    /// Adds a line to loader.conf.
    Conf(&'static str),
    /// Puts foreign files that the loader does not show into `loader/entries`, until an apply must make room there (ENT-28).
    FillEntries,
    /// Removes a file of the ESP.
    Remove(&'static str),
    /// Clears the header of the partition table's backup.
    NoBackupHeader,
    /// Lets the boot guard count five boots of slot B, in the tiny guest.
    GuardCountsFive,
    /// Power is cut in another flow, after this many thousandths of what it writes.
    Cut(&'static str, usize),
}

/// What is run on one of the slots.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Program and arguments.
    pub argv: &'static [&'static str],
    /// It restarts the machine, or may.
    pub restarts: bool,
    /// Exit codes that are well where it does not restart.
    pub exits: &'static [i64],
    /// It is the boot guard, and its record must hold this boot afterwards (GRD-10, GRD-12).
    pub guards: bool,
    /// What boots afterwards.
    pub boots: Boots,
    /// States that the slots may have afterwards (IFC-21).
    pub a: &'static [&'static str],
    /// As `a`.
    pub b: &'static [&'static str],
}

/// What the loader must take when something was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// What boots after the flow.
    After,
    /// The same slot with a generation above the running one: a cut apply has used one up, or has taken away every trace of
    /// those before it (there is no history here, ENT-4).
    Applied,
    /// What boots before the flow or after it: the guard's record says which.
    Either,
}

/// One flow.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// A short name, of its folder too.
    pub name: &'static str,
    /// How its disk is made.
    pub prepare: &'static [Prepare],
    /// The slot that runs.
    pub runs: &'static str,
    /// The version that it applies; 0: none.
    pub applies: u32,
    /// Slot and generation of what boots before the flow,
    pub before: (&'static str, u32),
    /// and after it.
    pub after: (&'static str, u32),
    /// It makes a comment of this line of loader.conf.
    pub comments: Option<&'static str>,
    /// What is recorded.
    pub op: Op,
    /// What is repeated where slot A boots after a cut.
    pub on_a: Op,
    /// What is repeated where slot B boots.
    pub on_b: Op,
}

const APPLY: &[&str] = &["/bin/ralph-update", "apply", "--trust", "/job/release.pub.pem", "/job/image.zst"];
const COMMIT: &[&str] = &["/bin/ralph-update", "commit"];
const ROLLBACK: &[&str] = &["/bin/ralph-update", "rollback"];
const REJECT_B: &[&str] = &["/bin/ralph-update", "reject", "b"];
const DOCTOR: &[&str] = &["/bin/ralph-update", "doctor", "--fix"];
/// Holds the loader on slot A.
const PIN: &str = "default ralphos-a-*";
const GUARD: &[&str] = &["/bin/ralph-boot-guard", "start"];
/// Twice: the loader is staged, and put in its place by the boot that it has started. With a folder for the firmware's variables.
const LOADER: &[&str] = &["/bin/busybox", "unshare", "--mount", "/bin/cuts-guest", "update-loader"];
const HEALTH: &[&str] = &["/bin/ralph-health-check", "run"];

const fn op(
    argv: &'static [&'static str],
    exits: &'static [i64],
    a: &'static [&'static str],
    b: &'static [&'static str],
) -> Op {
    Op { argv, restarts: false, exits, guards: false, boots: Boots::After, a, b }
}

/// Something that does not end but by a restart.
const fn restarting(argv: &'static [&'static str], a: &'static [&'static str], b: &'static [&'static str]) -> Op {
    Op { restarts: true, ..op(argv, &[], a, b) }
}

/// The boot guard, which counts, and restarts only where it gives up; its record says which it must be.
const fn guard(a: &'static [&'static str], b: &'static [&'static str], boots: Boots) -> Op {
    Op { restarts: true, guards: true, boots, ..op(GUARD, &[0], a, b) }
}

/// An apply that is done again.
const fn apply_again(a: &'static [&'static str], b: &'static [&'static str]) -> Op {
    Op { boots: Boots::Applied, ..op(APPLY, &[0, 4], a, b) }
}

const COMMITTED: &[&str] = &["committed"];
const EMPTY: &[&str] = &["empty"];
const BAD: &[&str] = &["bad"];
/// A running entry without tries counts as a trial.
const GIVEN_UP: &[&str] = &["bad", "trial"];

/// The boot guard's count of five boots of slot B.
pub const COUNTS_FIVE: Flow = Flow {
    name: "counts-five",
    prepare: &[],
    runs: "b",
    applies: 0,
    before: ("b", 2),
    after: ("b", 2),
    comments: None,
    op: FIVE_STARTS,
    on_a: FIVE_STARTS,
    on_b: FIVE_STARTS,
};

const FIVE_STARTS: Op = op(
    &["/bin/sh", "-c", "for boot in 1 2 3 4 5; do ralph-boot-guard start; busybox rm -r /run/ralphos; done"],
    &[0],
    COMMITTED,
    COMMITTED,
);

/// An update into slot B, which runs on trial when the cut came after its commit point.
const fn apply_to_b(name: &'static str, prepare: &'static [Prepare], applies: u32, generation: u32) -> Flow {
    Flow {
        name,
        prepare,
        runs: "a",
        applies,
        before: ("a", 1),
        after: ("b", generation),
        comments: None,
        op: op(APPLY, &[0], COMMITTED, &["staged"]),
        on_a: apply_again(COMMITTED, &["staged"]),
        on_b: op(APPLY, &[4], COMMITTED, &["trial"]),
    }
}

/// An update into slot A of a machine that runs slot B.
const fn second_apply(name: &'static str, prepare: &'static [Prepare], applies: u32) -> Flow {
    Flow {
        name,
        prepare,
        runs: "b",
        applies,
        before: ("b", 2),
        after: ("a", 3),
        comments: None,
        op: op(APPLY, &[0], &["staged"], COMMITTED),
        on_a: op(APPLY, &[4], &["trial"], COMMITTED),
        on_b: apply_again(&["staged"], COMMITTED),
    }
}

/// The trial in slot B is committed.
const fn commit_b(name: &'static str, prepare: &'static [Prepare]) -> Flow {
    Flow {
        name,
        prepare,
        runs: "b",
        applies: 0,
        before: ("b", 2),
        after: ("b", 2),
        comments: None,
        op: op(COMMIT, &[0], COMMITTED, COMMITTED),
        on_a: op(COMMIT, &[4], COMMITTED, COMMITTED),
        on_b: op(COMMIT, &[0, 4], COMMITTED, COMMITTED),
    }
}

/// The health check marks a trial in slot B bad.
const fn mark_bad(name: &'static str, prepare: &'static [Prepare]) -> Flow {
    Flow {
        name,
        prepare,
        runs: "b",
        applies: 0,
        before: ("b", 2),
        after: ("a", 1),
        comments: None,
        op: restarting(HEALTH, COMMITTED, GIVEN_UP),
        on_a: op(COMMIT, &[4], COMMITTED, BAD),
        on_b: restarting(HEALTH, COMMITTED, GIVEN_UP),
    }
}

/// All flows.
pub const FLOWS: &[Flow] = &[
    apply_to_b("first-apply", &[], 2, 2),
    second_apply("second-apply", &[Prepare::Apply(2), Prepare::Commit], 3),
    apply_to_b(
        "apply-over-fallen-back",
        &[Prepare::Apply(2), Prepare::Rename("ralphos-b-g2+3-0.conf", "ralphos-b-g2+0-3.conf")],
        3,
        3,
    ),
    apply_to_b("apply-repeated", &[Prepare::Cut("first-apply", 700)], 2, 3),
    apply_to_b("apply-makes-room", &[Prepare::FillEntries], 2, 2),
    apply_to_b("apply-unified", &[], UNIFIED + 2, 2),
    second_apply("second-apply-unified", &[Prepare::Apply(UNIFIED + 2), Prepare::Commit], UNIFIED + 3),
    commit_b(
        "commit-unified",
        &[Prepare::Apply(UNIFIED + 2), Prepare::Rename("ralphos-b-g2+3-0.conf", "ralphos-b-g2+2-1.conf")],
    ),
    commit_b("commit", &[Prepare::Apply(2), Prepare::Rename("ralphos-b-g2+3-0.conf", "ralphos-b-g2+2-1.conf")]),
    mark_bad("mark-bad", &[Prepare::Apply(2), Prepare::Rename("ralphos-b-g2+3-0.conf", "ralphos-b-g2+2-1.conf")]),
    // What is booted in a state of this one has no tries left: the names of a cut marking, counted, are all bad ones.
    mark_bad(
        "mark-bad-last-try",
        &[Prepare::Apply(2), Prepare::Rename("ralphos-b-g2+3-0.conf", "ralphos-b-g2+1-2.conf")],
    ),
    Flow {
        name: "rollback",
        prepare: &[Prepare::Apply(2), Prepare::Commit],
        runs: "b",
        applies: 0,
        before: ("b", 2),
        after: ("a", 1),
        comments: None,
        op: op(ROLLBACK, &[0], COMMITTED, GIVEN_UP),
        on_a: op(COMMIT, &[4], COMMITTED, BAD),
        on_b: op(ROLLBACK, &[0], COMMITTED, GIVEN_UP),
    },
    Flow {
        name: "reject",
        prepare: &[Prepare::Apply(2)],
        runs: "a",
        applies: 0,
        before: ("b", 2),
        after: ("a", 1),
        comments: None,
        op: op(REJECT_B, &[0], COMMITTED, BAD),
        on_a: op(REJECT_B, &[0, 4], COMMITTED, BAD),
        on_b: op(REJECT_B, &[0], COMMITTED, GIVEN_UP),
    },
    Flow {
        name: "guard-counts",
        prepare: &[Prepare::Apply(2), Prepare::Rename("ralphos-b-g2+3-0.conf", "ralphos-b-g2+2-1.conf")],
        runs: "b",
        applies: 0,
        before: ("b", 2),
        after: ("b", 2),
        comments: None,
        op: guard(COMMITTED, &["trial"], Boots::After),
        on_a: guard(COMMITTED, &["trial"], Boots::After),
        on_b: guard(COMMITTED, &["trial"], Boots::After),
    },
    Flow {
        name: "guard-gives-up",
        prepare: &[Prepare::Apply(2), Prepare::Commit, Prepare::GuardCountsFive],
        runs: "b",
        applies: 0,
        before: ("b", 2),
        after: ("a", 1),
        comments: None,
        op: guard(COMMITTED, GIVEN_UP, Boots::After),
        // It is counted and watched there as ever; what the cut left is put in order by the commit that comes after.
        on_a: op(COMMIT, &[4], COMMITTED, BAD),
        on_b: guard(COMMITTED, &["bad", "trial", "committed"], Boots::Either),
    },
    doctor_fix("doctor-fix", &OWN_CHAIN),
    doctor_fix("doctor-fix-shared", &SHARED_CHAIN),
    Flow {
        name: UPDATES_LOADER,
        prepare: &[Prepare::OlderLoader],
        runs: "a",
        applies: 0,
        before: ("a", 1),
        after: ("a", 1),
        comments: None,
        op: op(LOADER, &[0], COMMITTED, EMPTY),
        on_a: op(LOADER, &[0], COMMITTED, EMPTY),
        on_b: op(LOADER, &[0], COMMITTED, EMPTY),
    },
];

/// The flow that updates the boot loader.
const UPDATES_LOADER: &str = "loader";

const OWN_CHAIN: [Prepare; 5] = damages(Chain::Own);
const SHARED_CHAIN: [Prepare; 5] = damages(Chain::Shared);

/// What `doctor --fix` repairs on a disk (DOC-21): a staged system that a line of loader.conf keeps from its trial, a twin
/// of its entry, half a partition table, and no room for the guard's count.
///
/// It is the table's backup that is damaged, because a machine whose first table is damaged does not get as far as this:
/// the kernel looks for the backup only where it is told to (`gpt` on its command line), and finds no partitions. EFI
/// variables (DOC-23) lie in the firmware's own storage, and not on this disk.
const fn damages(chain: Chain) -> [Prepare; 5] {
    [
        Prepare::Apply(2),
        Prepare::Twin("ralphos-b-g2+3-0.conf", "ralphos-b-g2+2-1.conf", chain),
        Prepare::Conf(PIN),
        Prepare::Remove("ralphos/guard"),
        Prepare::NoBackupHeader,
    ]
}

const fn doctor_fix(name: &'static str, prepare: &'static [Prepare]) -> Flow {
    Flow {
        name,
        prepare,
        runs: "a",
        applies: 0,
        before: ("a", 1),
        after: ("b", 2),
        comments: Some(PIN),
        // Of the twins the one with fewer tries stays (UPD-24).
        op: op(DOCTOR, &[0], COMMITTED, &["trial"]),
        on_a: op(DOCTOR, &[0], COMMITTED, &["trial"]),
        on_b: op(DOCTOR, &[0], COMMITTED, &["trial"]),
    }
}

/// The firmware counts a try: it renames the entry of what it starts. What comes after it is the commit of that trial.
/// Recorded with real firmware, not in the tiny guest.
pub const FIRMWARE: Flow = Flow { on_b: COMMIT_OF_B, ..commit_b("firmware-counts", &[Prepare::Apply(2)]) };

/// The name that the firmware gives the trial there.
pub const COUNTED: &str = "ralphos-b-g2+2-1.conf";

/// The commit of the trial in slot B.
pub const COMMIT_OF_B: Op = op(COMMIT, &[0], COMMITTED, COMMITTED);

/// The flow of this name.
pub fn flow(name: &str) -> Option<&'static Flow> {
    FLOWS.iter().chain([&FIRMWARE]).find(|flow| flow.name == name)
}

impl Flow {
    /// Two names of its disk may share clusters, as a cut rename of the firmware leaves them (ENT-22).
    pub fn shares_clusters(&self) -> bool {
        let twin = |step: &Prepare| matches!(step, Prepare::Twin(_, _, Chain::Shared));
        self.name == FIRMWARE.name || self.prepare.iter().any(twin)
    }

    /// It updates the boot loader, from 252 to 257.
    pub fn updates_loader(&self) -> bool {
        self.name == UPDATES_LOADER
    }

    /// One of its operations, for the guest's job.
    pub fn job(&self, op: &Op) -> Value {
        let (slot, generation) = self.after;
        let boots = match op.boots {
            Boots::After => vec![self.after],
            Boots::Applied => (self.before.1 + 1..=generation + 1).map(|generation| (slot, generation)).collect(),
            Boots::Either => vec![self.before, self.after],
        };
        json!({
            "argv": op.argv,
            "restarts": op.restarts,
            "exits": op.exits,
            "guards": op.guards,
            "boots": boots,
            "slots": { "a": op.a, "b": op.b },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_have_names_of_their_own_and_rest_on_earlier_ones() {
        for (at, flow) in FLOWS.iter().enumerate() {
            assert!(FLOWS[..at].iter().all(|other| other.name != flow.name), "{}", flow.name);
            for prepare in flow.prepare {
                if let Prepare::Cut(name, thousandths) = prepare {
                    assert!(FLOWS[..at].iter().any(|other| other.name == *name), "{name}");
                    assert!(*thousandths < 1000);
                }
            }
        }
    }

    #[test]
    fn cut72_the_guest_is_told_what_must_boot() {
        let first = flow("first-apply").expect("it is there");
        assert_eq!(first.job(&first.op)["boots"], json!([["b", 2]]));
        assert_eq!(first.job(&first.on_a)["boots"], json!([["b", 2], ["b", 3]]));
        let guard = flow("guard-gives-up").expect("it is there");
        assert_eq!(guard.job(&guard.on_b)["boots"], json!([["b", 2], ["a", 1]]));
        assert_eq!(guard.job(&guard.on_b)["guards"], true);
    }

    #[test]
    fn ent22_flows_that_begin_with_a_cut_rename_say_so() {
        let sharing: Vec<&str> = FLOWS.iter().filter(|flow| flow.shares_clusters()).map(|flow| flow.name).collect();
        assert_eq!(sharing, ["doctor-fix-shared"]);
        assert!(FIRMWARE.shares_clusters());
    }
}
