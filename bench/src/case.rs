//! What is measured, as data.

use std::path::PathBuf;

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// A file on this machine's file system, all of whose blocks are allocated.
    File,
    /// A loop device over such a file, past the page cache.
    Loop,
}

impl Target {
    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Loop => "loop",
        }
    }
}

/// What a case shows; each is a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Theme {
    /// v2 into a slot that holds nothing of use.
    Full,
    /// v2 onto a machine that runs v1.
    Update,
}

/// How the bytes that had to be fetched are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// These files, whole.
    Files(Vec<PathBuf>),
    /// What the server sent.
    Served,
}

/// One thing that is measured.
#[derive(Clone, Debug)]
pub struct Case {
    /// What `--only` takes.
    pub contender: &'static str,
    /// What it does, in a few words.
    pub what: &'static str,
    /// Which table it stands in.
    pub theme: Theme,
    /// Where the bytes go.
    pub target: Target,
    /// Command lines that put the target into its state from before; not measured.
    pub reset: Vec<Vec<String>>,
    /// Files that are in the page cache when the clock starts.
    pub warm: Vec<PathBuf>,
    /// The command line.
    pub command: Vec<String>,
    /// Flushed at the end, within the time.
    pub flush: PathBuf,
    /// How to know what was fetched.
    pub fetched: Fetched,
    /// A command line that succeeds if the target holds v2 now; run once.
    pub check: Vec<String>,
}

impl Case {
    /// Its name among all cases.
    pub fn name(&self) -> String {
        format!("{}, {} ({})", self.contender, self.what, self.target.name())
    }
}

/// The contender that all others are measured by.
pub const FLOOR: &str = "floor";

/// The floor that goes with `case`: the one of the same target.
pub fn floor_of<'a>(cases: &'a [Case], case: &Case) -> Option<&'a Case> {
    cases.iter().find(|other| other.contender == FLOOR && other.target == case.target)
}
