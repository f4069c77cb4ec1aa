//! What the doctor finds (DOC-2): a stable name, how bad it is, what it means, and what to do.

use boot_entries::loader::ConfLine;
use disk_layout::TableCopy;
use serde::Serialize;

use crate::vars::LoaderVariable;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The next boot or the next update may fail for it.
    Danger,
    /// It does no harm by itself, and takes away a safety.
    Warning,
    /// Good to know.
    Note,
}

/// What `doctor --fix` does about it: one durable step (DOC-20). In the order in which it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// The damaged copy of the partition table is rewritten from the other one.
    Table(TableCopy),
    /// What a cut left among the entries is put right (UPD-24, ENT-22).
    Tidy,
    /// These lines of loader.conf become comments, one byte each.
    ConfLines(Vec<ConfLine>),
    /// The variable is removed.
    Variable(LoaderVariable),
    /// The boot guard's file is made (GRD-1).
    Guard,
}

impl Repair {
    /// The order: what the disk needs to be read at all; the entries; what chooses among them, for it is judged by what they
    /// are; and last what needs room, which may not be there.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Repair::Table(_) => 0,
            Repair::Tidy => 1,
            Repair::ConfLines(_) => 2,
            Repair::Variable(_) => 3,
            Repair::Guard => 4,
        }
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable, kebab-case.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub remedy: String,
    /// The same as a line to copy, where there is one.
    pub command: Option<String>,
    /// `doctor --fix` repairs it.
    pub fixable: bool,
    /// How.
    #[serde(skip)]
    pub repair: Option<Repair>,
}

impl Finding {
    pub(crate) fn new(id: &'static str, severity: Severity, what: impl Into<String>, why: &'static str) -> Self {
        let (what, remedy) = (what.into(), String::new());
        Finding { id, severity, what, why, remedy, command: None, fixable: false, repair: None }
    }

    /// What to do, in words.
    pub(crate) fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = text.into();
        self
    }

    /// What to do, as a line to copy.
    pub(crate) fn run(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// `doctor --fix` does this; the words are those of `remedy`.
    pub(crate) fn fix(mut self, repair: Repair, program: &str) -> Self {
        self.fixable = true;
        self.repair = Some(repair);
        self.run(format!("{program} doctor --fix"))
    }

    /// On one line, for a message.
    pub(crate) fn sentence(&self) -> String {
        let command = self.command.as_ref().map(|command| format!(" (`{command}`)")).unwrap_or_default();
        format!("{}: {}: {}{command}", self.id, self.what, self.remedy)
    }
}
