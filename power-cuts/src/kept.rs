//! A failing state that was kept, checked again against its base (`CUT-61`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::SECTOR;
use crate::check::{CheckError, Checker, Verdict};
use crate::disk::{Disk, Layer, State};
use crate::flow::{Flow, FlowError};
use crate::store::ReadAt;

const FORMAT: &str = "power-cuts kept state 1";
const PIECE: usize = 64 * 1024;

/// As what a state was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judged {
    /// As one that a cut may leave.
    #[default]
    State,
    /// As the disk before the flow.
    Base,
    /// As what the flow leaves.
    End,
}

/// The file `ID.json`: everything that the checks rest on besides the two disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kept {
    format: String,
    /// The disk before the flow, a file beside this one.
    pub base: String,
    /// The disk in this state, likewise.
    pub image: String,
    /// As what it was judged.
    pub judged: Judged,
    /// The new system was durable already (`went-back`).
    pub committed: bool,
    /// How many clusters it may have lost (`CUT-41`).
    pub lost_bound: Option<u64>,
    flow: serde_json::Value,
}

/// A kept state cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Its file is not of the form.
    #[error("the file of the kept state is not JSON of the form of CUT-61")]
    Json(#[source] serde_json::Error),
    /// The same, in a way that JSON does not know.
    #[error("the file of the kept state is not valid: {0}")]
    Value(String),
    /// The flow in it.
    #[error("the flow of the kept state cannot be used")]
    Flow(#[from] FlowError),
    /// One of the disks.
    #[error("cannot read {0}")]
    Io(String, #[source] io::Error),
    /// The checks.
    #[error("the kept state cannot be checked")]
    Check(#[from] CheckError),
}

impl Kept {
    /// What is kept of a state whose disks are the files `base` and `image`.
    pub fn new(flow: &Flow, base: String, image: String, judged: Judged) -> Kept {
        let flow = serde_json::from_slice(&flow.render()).expect("a flow file is JSON");
        Kept { format: FORMAT.to_owned(), base, image, judged, committed: false, lost_bound: None, flow }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is not of the form.
    pub fn parse(bytes: &[u8]) -> Result<Kept, KeptError> {
        let kept: Kept = serde_json::from_slice(bytes).map_err(KeptError::Json)?;
        if kept.format != FORMAT {
            return Err(KeptError::Value(format!("its format is {:?}", kept.format)));
        }
        for name in [&kept.base, &kept.image] {
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err(KeptError::Value(format!("{name:?} is no file beside it")));
            }
        }
        Ok(kept)
    }

    /// The file.
    pub fn render(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("strings and numbers are JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Checks the state again, with its disks in `dir`: as a state over its base, as it was made.
    ///
    /// # Errors
    /// When a disk cannot be read, or the base is none of ours.
    pub fn check(&self, dir: &Path) -> Result<Verdict, KeptError> {
        let flow = Flow::parse(&serde_json::to_vec(&self.flow).map_err(KeptError::Json)?)?;
        let open = |name: &str| File::open(dir.join(name)).map_err(|error| KeptError::Io(name.to_owned(), error));
        let image = |error| KeptError::Io(self.image.clone(), error);
        let mut disk = Disk::new(open(&self.base)?, open(&self.image)?)
            .map_err(|error| KeptError::Io(self.base.clone(), error))?;
        let layer = differing(&mut disk, &open(&self.image)?).map_err(image)?;
        let mut checker = Checker::new(&disk, &flow)?;
        checker.set_lost_bound(self.lost_bound);
        if self.committed {
            checker.commit();
        }
        let state = State::of(Rc::new(layer));
        let verdict = match self.judged {
            Judged::State => checker.check(&state),
            Judged::Base => checker.check_base(&state),
            Judged::End => checker.check_end(&state),
        };
        verdict.map_err(image)
    }
}

/// The sectors of an image that differ from the base, where the image stands in for the log.
fn differing(disk: &mut Disk<File, File>, image: &File) -> io::Result<Layer> {
    if image.length()? != disk.bytes() {
        return Err(io::Error::other("it is not as long as its base"));
    }
    let mut found = BTreeMap::new();
    let (mut ours, mut base) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    while at < disk.bytes() {
        let piece = usize::try_from(disk.bytes() - at).unwrap_or(PIECE).min(PIECE);
        image.read_exact_at(&mut ours[..piece], at)?;
        disk.base().read_exact_at(&mut base[..piece], at)?;
        if ours[..piece] != base[..piece] {
            for (index, (own, old)) in ours[..piece].chunks(SECTOR).zip(base[..piece].chunks(SECTOR)).enumerate() {
                if own != old {
                    let offset = at + (index * SECTOR) as u64;
                    let sector = offset / SECTOR as u64;
                    found.insert(sector, disk.learn(sector, Some(offset))?);
                }
            }
        }
        at += piece as u64;
    }
    let mut layer = Layer::default();
    for (sector, content) in found {
        layer.put(disk, sector, content);
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut61_the_file_is_read_and_written_and_refused() {
        let flow = r#"{"format": "power-cuts flow 1", "name": "x", "architecture": "x64",
            "before": [{"slot": "a", "generation": 1}], "after": [{"slot": "a", "generation": 1}]}"#;
        let flow = Flow::parse(flow.as_bytes()).unwrap();
        let kept = Kept::new(&flow, "x-base.raw".into(), "x-end.raw".into(), Judged::End);
        assert_eq!(Kept::parse(&kept.render()).unwrap(), kept);
        for (from, to) in [("state 1", "state 2"), ("x-base.raw", "../x-base.raw"), ("\"judged\"", "\"how\"")] {
            let text = String::from_utf8(kept.render()).unwrap().replacen(from, to, 1);
            assert!(Kept::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
