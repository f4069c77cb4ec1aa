//! What the loader boots in a state.

use boot_entries::{Entry, EntryName, Esp, EspError, EspPath, Liveness, Prediction, RawEsp, because_text};

use super::{Failure, Name};
use crate::flow::System;
use crate::store::ReadAt;
use crate::view::View;

/// The loader has no limit; entries have a few hundred bytes.
const FILE_MAX: u64 = 1 << 20;

/// The entry that the loader boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boots {
    /// Its file, before the loader counts.
    pub file: String,
    /// The system that its content names.
    pub system: System,
    /// Its content.
    pub entry: Entry,
    /// Its name, when that is one of ours.
    pub name: Option<EntryName>,
}

impl Boots {
    /// It is on trial: the loader counts its tries, and some are left.
    pub fn is_trial(&self) -> bool {
        self.name.and_then(|name| name.counter).is_some_and(|counter| !counter.is_exhausted())
    }

    /// The kernel's command line.
    pub fn options(&self) -> String {
        self.entry.options.to_string()
    }
}

/// The entry behind a prediction, read from the file's content as far as the loader reads it (`CUT-33`).
pub(super) fn of<B: ReadAt, L: ReadAt>(
    prediction: Prediction,
    esp: &mut RawEsp<View<'_, B, L>>,
) -> Result<Result<Boots, Failure>, EspError> {
    let fail = |name, text: String| Ok(Err(Failure::new(name, text)));
    let (file, named) = match prediction {
        Prediction::Boots { file_name, entry, .. } => (file_name, entry),
        Prediction::Nothing => return fail(Name::NothingBoots, "the loader finds nothing to boot".to_owned()),
        Prediction::Unknown { because } => return fail(Name::Unpredictable, because_text(&because)),
    };
    let Ok(path) = format!("loader/entries/{file}").parse::<EspPath>() else {
        return fail(Name::ForeignBoots, format!("{file} boots, which is no path of ours"));
    };
    let content = esp.read(&path, FILE_MAX)?;
    let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
    match Entry::parse(&content[..end]) {
        Ok((entry, Liveness::Live)) => {
            let system = System { slot: entry.slot(), generation: entry.generation() };
            Ok(Ok(Boots { file, system, entry, name: named }))
        }
        Ok((_, Liveness::Inert)) => fail(Name::Entry, format!("{file} boots, and it is inert")),
        Err(_) if named.is_none() => fail(Name::ForeignBoots, format!("{file} boots, which is none of ours")),
        Err(error) => Ok(Err(Failure::error(Name::Entry, &error))),
    }
}
