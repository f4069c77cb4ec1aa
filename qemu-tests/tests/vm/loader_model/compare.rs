//! What the model said beside what the loader did.

use std::fs::File;

use anyhow::{Context, Result};
use boot_entries::loader::{Candidate, Outcome};
use boot_entries::{EntryName, Esp, EspState, ImageEsp, Prediction, Release};
use disk_layout::{DiskLayout, FileWindow, LayoutError};
use qemu_tests::loaders::{Place, Ran, VOLUME_LEN};

use super::state::{ENTRIES, Expect, State};
use crate::ARCH;

/// An ESP as the product read it before the loader ran.
pub struct Before {
    state: EspState,
    prediction: Prediction,
    /// Names in the folder of entries, sorted.
    pub listing: Vec<String>,
}

impl Before {
    pub fn read(place: &Place, state: &State) -> Result<Self> {
        let mut esp = open(place)?;
        let read = EspState::read(&mut esp)?;
        let prediction = read.predict(&state.loader_vars(), ARCH.entry());
        Ok(Self { state: read, prediction, listing: listing(&mut esp) })
    }
}

/// Every way in which they differ.
pub fn compare(state: &State, release: Release, before: &Before, place: &Place, ran: &Ran) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, model: &dyn std::fmt::Debug, loader: &dyn std::fmt::Debug| {
        let (model, loader) = (format!("{model:?}"), format!("{loader:?}"));
        if model != loader {
            wrong.push(format!("{what}: the model says {model}, the loader {loader}"));
        }
    };
    let refused = matches!(before.prediction, Prediction::Unknown { .. });
    same("halted", &(state.expect == Expect::Halt), &ran.halted);
    if let Some(should) = match state.expect {
        Expect::Agreement | Expect::Parked => Some(false),
        Expect::Refusal | Expect::ReleasesDiffer | Expect::Halt => Some(true),
        Expect::Whatever => None,
    } {
        same("refuses to predict", &should, &refused);
    }
    if state.beside.is_some() {
        // The loader takes entries from there, which the model does not know; the product does not touch such a disk.
        let taken =
            ran.kernel.is_some() && !ran.selected.iter().any(|id| Some(id) == first_id(before, release).as_ref());
        same("boots what XBOOTLDR adds", &true, &(taken || ran.entries.len() > ids(before, release).len()));
        same("disk refused", &true, &matches!(DiskLayout::open(&place.disk), Err(LayoutError::Xbootldr(2))));
        return Ok(wrong);
    }
    if matches!(state.expect, Expect::Refusal | Expect::Halt) {
        return Ok(wrong);
    }

    let candidates = before.state.candidates(release, ARCH.entry());
    let listed: Vec<&String> = ran.entries.iter().filter(|id| !is_automatic(id)).collect();
    same("order", &candidates.iter().map(|candidate| &candidate.id).collect::<Vec<_>>(), &listed);
    let chosen = match before.state.outcome(release, &state.loader_vars(), ARCH.entry()) {
        Outcome::Boots(choice) => {
            let candidate = candidates.iter().find(|candidate| candidate.index == choice.index);
            Some((candidate.context("a choice that is no candidate")?, choice.name))
        }
        Outcome::Nothing => None,
        // The loader may do anything.
        Outcome::Automatic { .. } => return Ok(wrong),
    };
    let id = chosen.as_ref().map(|(candidate, _)| &candidate.id);
    same("selected", &id, &ran.selected.as_ref());
    let started = chosen.as_ref().filter(|_| state.expect != Expect::Parked).map(|(c, _)| normal(&c.kernel));
    same("started", &started, &ran.kernel.as_deref().map(normal));
    let after = counted(&before.listing, chosen.as_ref().map(|(candidate, name)| (*candidate, name.as_str())));
    same("names afterwards", &after, &listing(&mut open(place)?));
    if let (Prediction::Boots { file_name, .. }, Some((_, name))) = (&before.prediction, &chosen) {
        let system = |name: &str| name.parse::<EntryName>().map(EntryName::committed).ok();
        let twin = system(file_name).is_some() && system(file_name) == system(name);
        same("prediction", &true, &(file_name == name || twin));
    }
    Ok(wrong)
}

/// The folder after the loader counted a try: a name that is taken stays taken, and then nothing is renamed (LDR-7).
fn counted(listing: &[String], chosen: Option<(&Candidate, &str)>) -> Vec<String> {
    let Some((name, new)) = chosen.and_then(|(candidate, name)| Some((name, candidate.counted_name.as_ref()?))) else {
        return listing.to_vec();
    };
    let taken = listing.iter().any(|other| other.to_lowercase() == new.to_lowercase() && other != name);
    if taken {
        return listing.to_vec();
    }
    let mut after: Vec<String> =
        listing.iter().map(|other| if other == name { new.clone() } else { other.clone() }).collect();
    after.sort();
    after
}

/// What the loader adds by itself has no ending.
fn is_automatic(id: &str) -> bool {
    id.starts_with("auto-") && !id.to_ascii_lowercase().ends_with(".conf")
}

fn ids(before: &Before, release: Release) -> Vec<String> {
    before.state.candidates(release, ARCH.entry()).into_iter().map(|candidate| candidate.id).collect()
}

fn first_id(before: &Before, release: Release) -> Option<String> {
    ids(before, release).into_iter().next()
}

/// A path's parts, as the firmware finds them: in any case.
fn normal(path: &str) -> Vec<String> {
    path.split(['/', '\\']).filter(|part| !part.is_empty()).map(str::to_lowercase).collect()
}

fn open(place: &Place) -> Result<ImageEsp<FileWindow>> {
    let file = File::options().read(true).write(true).open(&place.disk)?;
    Ok(ImageEsp::new(FileWindow::new(file, place.offset, VOLUME_LEN)?))
}

fn listing(esp: &mut ImageEsp<FileWindow>) -> Vec<String> {
    let items = ENTRIES.parse().ok().and_then(|dir| esp.list(&dir).ok()).unwrap_or_default();
    let mut names: Vec<String> = items.into_iter().map(|item| item.name).collect();
    names.sort();
    names
}
