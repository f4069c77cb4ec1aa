//! Boot entries of RalphOS on an EFI system partition: their names, their content, what the boot loader makes of them,
//! and how they are changed so that a power cut at any instant leaves a machine that boots one system, whole.
//!
//! The rules are in `specs/boot-entries.md` and cited by number. Three layers: what things are ([`names`], [`entry`],
//! [`options`]), what will happen ([`loader`], a pure model of systemd-boot, and [`state`], an ESP read once), and what is
//! done ([`change`]), all of it through one seam, [`esp`], with a back end for the kernel's mount, one for disk image files,
//! and one that records.

pub mod change;
pub mod entry;
pub mod esp;
pub mod fat;
pub mod guard;
pub mod kexec;
pub mod loader;
pub mod names;
pub mod options;
mod prediction;
pub mod signed;
pub mod state;
pub mod vars;

#[cfg(test)]
mod testing;

pub use change::{
    ChangeError, Committed, Fenced, MarkedBad, Staged, Tidied, WrittenPayload, commit, fence, mark_bad, stage, tidy,
};
pub use entry::{Entry, EntryArchitecture, EntryError, Liveness, Payloads};
pub use esp::{Esp, EspError, EspPath, FakeEsp, ImageEsp, KernelEsp, RawEsp, Space, WriteError};
pub use loader::{LoaderConf, LoaderVars, Release};
pub use names::{Counter, EntryName, Generation, PayloadKind, PayloadName};
pub use options::{BootOptions, OnCorruption};
pub use signed::{RUNNING_OPTIONS, RUNNING_ROOT, RunningError, running_options};
pub use state::{
    EspState, Fallback, NoFallback, OurEntry, Prediction, Unpredictable, Wholeness, another_whole_entry_boots,
    because_text, is_whole,
};
pub use vars::{FoundVars, read_vars};
