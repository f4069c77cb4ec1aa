//! What must be true of every state (`CUT-30` to `CUT-42`).

mod boots;
mod esp;
mod failure;
mod files;
mod foreign;
mod gpt;
mod lost;
mod readers;
mod slot;

use std::io;
use std::ops::Range;

use disk_layout::{DiskLayout, LayoutError};

use crate::SECTOR;
use crate::disk::{Disk, Layer, State};
use crate::flow::{Flow, System};
use crate::places::Places;
use crate::store::ReadAt;
use crate::view::View;

pub use boots::Boots;
pub use failure::{Failure, NAMES, Name};

use boot_entries::RawEsp;
use files::Files;
use foreign::ForeignDir;
use gpt::Tables;
use lost::Clusters;
use slot::Slots;

/// The checks could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The base or the log.
    #[error("cannot read the base or the log")]
    Io(#[from] io::Error),
    /// The base has no layout that we know.
    #[error("the base is no disk of ours")]
    Layout(#[from] LayoutError),
    /// The base's ESP cannot be read.
    #[error("the EFI system partition of the base cannot be read")]
    Fat(#[from] boot_entries::fat::FatError),
    /// The same.
    #[error("the EFI system partition of the base cannot be read")]
    Esp(#[from] boot_entries::EspError),
}

/// What the checks found in one state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rules that it breaks; none when it is good.
    pub failures: Vec<Failure>,
    /// What the loader boots, when that could be found.
    pub boots: Option<Boots>,
    /// Where a trial boots: what boots once it has no tries left, or why nothing of ours does.
    pub fallback: Option<Result<Boots, Failure>>,
    /// The files in `loader/entries` that the loader reads.
    pub entries: Vec<String>,
    /// The two readers differ, and a rule of the firmware explains it (`CUT-32`).
    pub explained: bool,
    /// Names whose chain is broken and that do not boot (`CUT-38`).
    pub broken_names: usize,
    /// Clusters that no name leads to (`CUT-41`).
    pub lost: u64,
    /// Two names on one chain, as the firmware's cut rename leaves them.
    pub cut_renames: usize,
}

impl Verdict {
    fn fail(&mut self, name: Name, text: impl Into<String>) {
        self.failures.push(Failure::new(name, text));
    }

    /// The system that boots.
    pub fn system(&self) -> Option<System> {
        self.boots.as_ref().map(|boots| boots.system)
    }
}

/// Checks states of one flow, and remembers what it found about their parts.
#[derive(Debug)]
pub struct Checker<'a, B, L> {
    disk: &'a Disk<B, L>,
    flow: &'a Flow,
    layout: DiskLayout,
    esp: Range<u64>,
    tables: Tables,
    files: Files,
    slots: Slots,
    /// What the loader's own files may hold, as SHA-256.
    loader: Vec<esp::LoaderFile>,
    /// Files of anybody else, as they are in the base.
    foreign: Vec<ForeignDir>,
    clusters: Option<Clusters>,
    /// More clusters than these may not be lost.
    lost_bound: Option<u64>,
    /// What the base falls back to, when it boots a trial.
    falls_back_to: Option<System>,
    /// Systems of `before` may not boot any more.
    committed: bool,
}

impl<'a, B: ReadAt, L: ReadAt> Checker<'a, B, L> {
    /// Reads the base: its layout, and the loader's files.
    ///
    /// # Errors
    /// When it is no disk of ours.
    pub fn new(disk: &'a Disk<B, L>, flow: &'a Flow) -> Result<Checker<'a, B, L>, CheckError> {
        let base = State::of(Layer::default().into());
        let layout = gpt::layout_of(disk, &base)?;
        let esp = layout.esp.start..layout.esp.end();
        let places = Places::new(&layout, View::new(disk, &base, esp.clone()))?;
        let files = Files::new(&places);
        let tables = Tables::new(&places, &layout);
        let mut checker = Checker {
            disk,
            flow,
            layout,
            esp,
            tables,
            files,
            slots: Slots::default(),
            loader: Vec::new(),
            foreign: Vec::new(),
            clusters: None,
            lost_bound: None,
            falls_back_to: None,
            committed: false,
        };
        // A base that cannot be read has none of these, and fails as a state.
        let mut verdict = Verdict::default();
        checker.check_esp(&base, &mut verdict)?;
        checker.falls_back_to = verdict.fallback.and_then(Result::ok).map(|boots| boots.system);
        checker.loader = checker.loader_files(&base)?;
        checker.foreign = checker.foreign_dirs(&base)?;
        let mut raw = RawEsp::open(checker.esp(&base))?;
        checker.clusters = Clusters::new(disk, &checker.esp, &mut raw, checker.esp(&base))?;
        Ok(checker)
    }

    /// The disk's layout.
    pub fn layout(&self) -> &DiskLayout {
        &self.layout
    }

    /// The ESP of a state.
    pub fn esp<'s>(&self, state: &'s State) -> View<'s, B, L>
    where
        'a: 's,
    {
        View::new(self.disk, state, self.esp.clone())
    }

    /// From now on the systems of `before` may not boot any more, unless they are in `after`, too (`went-back`).
    pub fn commit(&mut self) {
        self.committed = true;
    }

    /// True from [`Checker::commit`] on.
    pub fn is_committed(&self) -> bool {
        self.committed
    }

    /// Whether a system is one of the flow's `before`, and one of its `after`.
    pub fn allowed(&self, system: System) -> (bool, bool) {
        (self.flow.before.contains(&system), self.flow.after.contains(&system))
    }

    /// Checks a state.
    ///
    /// # Errors
    /// When base or log cannot be read: nothing is then known about the state.
    pub fn check(&mut self, state: &State) -> io::Result<Verdict> {
        let mut verdict = Verdict::default();
        if let Err(failure) = self.tables.check(self.disk, state)? {
            verdict.failures.push(failure);
        }
        self.check_esp(state, &mut verdict)?;
        self.check_lost(state, &mut verdict)?;
        if let Some(boots) = verdict.boots.clone() {
            self.check_system(boots.system, &mut verdict);
            self.check_whole(state, &boots, &mut verdict)?;
            self.check_fallback(state, &boots, &mut verdict)?;
        }
        Ok(verdict)
    }

    /// `CUT-39`
    fn check_fallback(&mut self, state: &State, trial: &Boots, verdict: &mut Verdict) -> io::Result<()> {
        if !self.flow.fallback {
            return Ok(());
        }
        let other = match verdict.fallback.clone() {
            None => return Ok(()),
            Some(Ok(other)) => other,
            Some(Err(failure)) => {
                verdict.fail(Name::Fallback, format!("once {} is bad: {failure}", trial.file));
                return Ok(());
            }
        };
        let (system, (before, after)) = (other.system, self.allowed(other.system));
        if system.slot == trial.system.slot {
            verdict.fail(Name::Fallback, format!("once {} is bad, {system} of the same slot boots", trial.file));
        } else if !before && !after && self.falls_back_to != Some(system) {
            verdict.fail(Name::Fallback, format!("once {} is bad, {system} boots, which is not foreseen", trial.file));
        }
        let mut whole = Verdict::default();
        self.check_whole(state, &other, &mut whole)?;
        for failure in whole.failures {
            verdict.fail(Name::Fallback, format!("once {} is bad, {} boots: {failure}", trial.file, other.file));
        }
        Ok(())
    }

    /// Checks the base, and that it boots a system of `before` (`base`).
    ///
    /// # Errors
    /// As [`Checker::check`].
    pub fn check_base(&mut self, state: &State) -> io::Result<Verdict> {
        let mut verdict = self.check(state)?;
        if !verdict.system().is_some_and(|system| self.flow.before.contains(&system)) {
            verdict.fail(Name::Base, "the base boots no system of before");
        }
        Ok(verdict)
    }

    /// Checks what the flow leaves: it boots a system of `after`, and has the entries that the flow names (`end`).
    ///
    /// # Errors
    /// As [`Checker::check`].
    pub fn check_end(&mut self, state: &State) -> io::Result<Verdict> {
        let mut verdict = self.check(state)?;
        if !verdict.system().is_some_and(|system| self.flow.after.contains(&system)) {
            verdict.fail(Name::End, "the end boots no system of after");
        }
        if let Some(mut wanted) = self.flow.entries.clone() {
            wanted.sort();
            if wanted != verdict.entries {
                let (found, wanted) = (verdict.entries.join(", "), wanted.join(", "));
                verdict.fail(Name::End, format!("loader/entries holds {found} at the end, and not {wanted}"));
            }
        }
        Ok(verdict)
    }

    fn check_system(&self, system: System, verdict: &mut Verdict) {
        let (before, after) = self.allowed(system);
        if !before && !after {
            verdict.fail(Name::NotAllowed, format!("{system} boots, which this flow does not allow"));
        } else if self.committed && !after {
            verdict.fail(Name::WentBack, format!("{system} boots, and the new system was durable already"));
        }
    }
}

/// The sectors that hold these bytes.
fn sectors(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / SECTOR as u64..bytes.end.div_ceil(SECTOR as u64)
}
