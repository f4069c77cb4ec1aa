//! What can be wrong with a state, by name (`CUT-30` to `CUT-42`).

use std::fmt;

/// The name of a rule that a state breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// `CUT-30`
    Gpt,
    /// `CUT-31`
    Fat,
    /// `CUT-32`
    Readers,
    /// `CUT-33`: the loader finds nothing.
    NothingBoots,
    /// `CUT-33`: there is what the model leaves out of account.
    Unpredictable,
    /// `CUT-33`: an entry boots whose content is not ours.
    ForeignBoots,
    /// `CUT-33`: another system boots than the flow allows.
    NotAllowed,
    /// `CUT-33`: the old system boots after the new one was durable.
    WentBack,
    /// `CUT-33`: the base does not boot a system of before.
    Base,
    /// `CUT-33`: the end does not boot a system of after.
    End,
    /// `CUT-34`
    Entry,
    /// `CUT-34`
    Kernel,
    /// `CUT-34`
    Initrd,
    /// `CUT-35`
    Slot,
    /// `CUT-36`
    SharedClusters,
    /// `CUT-37`
    Loader,
    /// `CUT-39`
    Fallback,
    /// `CUT-41`
    Lost,
    /// `CUT-42`
    Foreign,
}

/// All names.
pub const NAMES: [Name; 19] = [
    Name::Gpt,
    Name::Fat,
    Name::Readers,
    Name::NothingBoots,
    Name::Unpredictable,
    Name::ForeignBoots,
    Name::NotAllowed,
    Name::WentBack,
    Name::Base,
    Name::End,
    Name::Entry,
    Name::Kernel,
    Name::Initrd,
    Name::Slot,
    Name::SharedClusters,
    Name::Loader,
    Name::Fallback,
    Name::Lost,
    Name::Foreign,
];

impl Name {
    /// As the report and the specification say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Name::Gpt => "gpt",
            Name::Fat => "fat",
            Name::Readers => "readers",
            Name::NothingBoots => "nothing-boots",
            Name::Unpredictable => "unpredictable",
            Name::ForeignBoots => "foreign-boots",
            Name::NotAllowed => "not-allowed",
            Name::WentBack => "went-back",
            Name::Base => "base",
            Name::End => "end",
            Name::Entry => "entry",
            Name::Kernel => "kernel",
            Name::Initrd => "initrd",
            Name::Slot => "slot",
            Name::SharedClusters => "shared-clusters",
            Name::Loader => "loader",
            Name::Fallback => "fallback",
            Name::Lost => "lost",
            Name::Foreign => "foreign",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule that a state breaks, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which rule.
    pub name: Name,
    /// How.
    pub text: String,
}

impl Failure {
    pub(crate) fn new(name: Name, text: impl Into<String>) -> Failure {
        Failure { name, text: text.into() }
    }

    /// An error and everything behind it.
    pub(crate) fn error(name: Name, error: &dyn std::error::Error) -> Failure {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        Failure { name, text }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}
