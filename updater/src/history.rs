//! What happened on this machine: an append-only file of JSON lines (UPD-41).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use disk_layout::Slot;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use crate::evidence::EVIDENCE_DIR;
use crate::exit::with_source;

/// Readers look at no more than this much of the file's end: it grows by a few hundred bytes an update.
const READ_LIMIT: u64 = 4 * 1024 * 1024;

/// What an [`Event`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// An image was written and staged.
    Applied,
    /// A trial was committed.
    Committed,
    /// A boot on trial ended in a verdict against it.
    TrialFailed,
    /// A committed slot could not be booted; the boot guard's evidence (UPD-44).
    BootFailed,
    /// The loader went back to the other slot; found out afterwards (UPD-43).
    FellBack,
    /// An operator sent the machine back to the other slot.
    RolledBack,
    /// An operator marked a slot bad.
    Rejected,
    /// An operator applied a system again that had failed here.
    Retried,
    /// Another boot loader has started the machine, and is the default now.
    LoaderUpdated,
    /// Written by a newer program; kept, never interpreted.
    #[serde(other)]
    Unknown,
}

impl EventKind {
    /// The name the history file uses.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Applied => "applied",
            EventKind::Committed => "committed",
            EventKind::TrialFailed => "trial-failed",
            EventKind::BootFailed => "boot-failed",
            EventKind::FellBack => "fell-back",
            EventKind::RolledBack => "rolled-back",
            EventKind::Rejected => "rejected",
            EventKind::Retried => "retried",
            EventKind::LoaderUpdated => "loader-updated",
            EventKind::Unknown => "unknown",
        }
    }
}

/// One line of the history (UPD-41).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// Seconds since 1970 as the machine's clock said; never relied on (THR-6).
    pub time: u64,
    /// The kernel's boot id, which orders events when the clock does not.
    #[serde(default)]
    pub boot_id: String,
    /// What happened.
    pub event: EventKind,
    /// The slot it happened to.
    #[serde(with = "slot_text")]
    pub slot: Slot,
    /// The generation of the slot's entry.
    pub generation: u32,
    /// The OS version in the slot.
    pub version: String,
    /// The system id, 64 hex digits.
    pub system: String,
    /// One line for a person.
    #[serde(default)]
    pub detail: String,
    /// DONE of the entry's counter in the boot that is told of, or how far a fallback had counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

mod slot_text {
    use disk_layout::Slot;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(slot: &Slot, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(slot)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Slot, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Why the history could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no `/var` to write to (a disk image file, or a lost partition).
    #[error("nothing was recorded in the history: that is kept in the /var of a running machine")]
    NoVar,
    /// A call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HistoryError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| HistoryError::Io { action, path: path.to_owned(), source }
    }
}

/// `/var/lib/ralph-update`: the history and the floor (UPD-40, UPD-41). Never state to depend on.
#[derive(Debug, Clone)]
pub struct Records {
    dir: Option<PathBuf>,
    boot_id: String,
    /// Taken for a place that lasts, whatever it is.
    lasting: bool,
}

impl Records {
    /// Records kept in the folder `dir`, which is made when something is first written.
    pub fn in_dir(dir: impl Into<PathBuf>, boot_id: impl Into<String>) -> Self {
        Records { dir: Some(dir.into()), boot_id: boot_id.into(), lasting: false }
    }

    /// No records at all: a disk image file (UPD-60).
    pub fn none() -> Self {
        Records { dir: None, boot_id: String::new(), lasting: false }
    }

    /// Takes the place for one that lasts without asking: for tests, whose folders may well be in memory.
    #[must_use]
    pub fn taken_for_lasting(self) -> Self {
        Records { lasting: true, ..self }
    }

    /// Is there a place to write to?
    pub fn available(&self) -> bool {
        self.dir.is_some()
    }

    /// Is the place in memory? A machine without its `/var` may have a tmpfs there: what is recorded ends with the boot.
    pub fn in_memory(&self) -> bool {
        !self.lasting && self.dir.as_deref().is_some_and(in_memory)
    }

    /// Where evidence is kept (HLT-40).
    pub fn evidence_dir(&self) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(EVIDENCE_DIR))
    }

    /// Where the slot maps are kept (SLM-1).
    pub fn slots_dir(&self) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join("slots"))
    }

    /// What says that nothing was ever kept here, for a person: `/var` may be lost, or another file system in its place.
    pub fn missing(&self) -> Option<String> {
        let dir = self.dir.as_ref().filter(|dir| !dir.exists())?;
        Some(format!("{} does not exist: nothing was recorded yet, or /var is lost", dir.display()))
    }

    fn path(&self, name: &str) -> Result<PathBuf, HistoryError> {
        self.dir.as_ref().map(|dir| dir.join(name)).ok_or(HistoryError::NoVar)
    }

    /// Appends one event and makes it durable. `time` and `boot_id` are filled in.
    pub fn append(&self, mut event: Event) -> Result<(), HistoryError> {
        event.time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        event.boot_id.clone_from(&self.boot_id);
        let path = self.path("history.jsonl")?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).map_err(HistoryError::io("create", dir))?;
        let mut line = serde_json::to_vec(&event).map_err(|e| HistoryError::io("write", &path)(e.into()))?;
        line.push(b'\n');
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(HistoryError::io("open", &path))?;
        // A power cut may have left half a line behind: it must swallow nothing of this one.
        if ends_within_a_line(&mut file).map_err(HistoryError::io("read", &path))? {
            line.insert(0, b'\n');
        }
        file.write_all(&line).map_err(HistoryError::io("write", &path))?;
        file.sync_all().map_err(HistoryError::io("flush", &path))?;
        sync_dir(dir)
    }

    /// Every event that can be read, oldest first. Lines that are torn or not ours are skipped.
    pub fn events(&self) -> Result<Vec<Event>, HistoryError> {
        let Ok(path) = self.path("history.jsonl") else { return Ok(Vec::new()) };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(HistoryError::io("open", &path)(e)),
        };
        let mut text = Vec::new();
        let read = (|| {
            let start = file.metadata()?.len().saturating_sub(READ_LIMIT);
            file.seek(SeekFrom::Start(start))?;
            file.take(READ_LIMIT).read_to_end(&mut text)
        })();
        read.map_err(HistoryError::io("read", &path))?;
        Ok(text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// The highest epoch recorded as committed, 0 when there is none or it cannot be read (UPD-40): `/var` may be lost, and
    /// committed entries say it, too. [`Records::problem`] tells of a record that is there and cannot be read.
    pub fn floor(&self) -> u32 {
        self.recorded_floor().ok().flatten().unwrap_or(0)
    }

    /// What of the records is there and cannot be read, for a person.
    pub fn problem(&self) -> Option<String> {
        let told = |error: HistoryError| with_source(&error);
        self.recorded_floor().err().or_else(|| self.events().err()).map(told)
    }

    fn recorded_floor(&self) -> Result<Option<u32>, HistoryError> {
        let Ok(path) = self.path("floor") else { return Ok(None) };
        match fs::read_to_string(&path) {
            Ok(text) => {
                let number = text.trim().parse().map_err(|_| io::Error::other(format!("{text:?} is no number")));
                number.map(Some).map_err(HistoryError::io("read", &path))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(HistoryError::io("read", &path)(e)),
        }
    }

    /// Raises the recorded floor to `epoch`; never lowers it.
    pub fn raise_floor(&self, epoch: u32) -> Result<(), HistoryError> {
        let path = self.path("floor")?;
        if self.floor() >= epoch {
            return Ok(());
        }
        let dir = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).map_err(HistoryError::io("create", dir))?;
        // A new file and a rename: a cut leaves the old number or the new one.
        let fresh = path.with_extension("new");
        let write = (|| {
            let mut file = File::create(&fresh)?;
            writeln!(file, "{epoch}")?;
            file.sync_all()
        })();
        write.map_err(HistoryError::io("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(HistoryError::io("rename", &path))?;
        sync_dir(dir)
    }
}

/// `RAMFS_MAGIC` of Linux, which nix does not name.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Is the file system of this path a tmpfs or a ramfs? One that cannot be asked is taken for a lasting one.
pub fn in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| matches!(found.filesystem_type(), TMPFS_MAGIC | RAMFS_MAGIC))
}

fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last[0] != b'\n')
}

fn sync_dir(dir: &Path) -> Result<(), HistoryError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(HistoryError::io("flush", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, system: &str) -> Event {
        Event {
            time: 0,
            boot_id: String::new(),
            event: kind,
            slot: Slot::B,
            generation: 2,
            version: "2.0.0".into(),
            system: system.into(),
            detail: "for a test".into(),
            attempt: None,
        }
    }

    #[test]
    fn upd_41_events_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::in_dir(dir.path().join("deep/er"), "boot-1");
        assert_eq!(records.events().unwrap(), []);
        records.append(event(EventKind::Applied, "s")).unwrap();
        records.append(event(EventKind::Committed, "s")).unwrap();
        let back = records.events().unwrap();
        assert_eq!(back.iter().map(|e| e.event).collect::<Vec<_>>(), [EventKind::Applied, EventKind::Committed]);
        assert_eq!(back[0].boot_id, "boot-1");
        assert!(back[0].time > 0);
    }

    #[test]
    fn upd_41_a_torn_last_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::in_dir(dir.path(), "");
        records.append(event(EventKind::Applied, "s")).unwrap();
        let path = dir.path().join("history.jsonl");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &whole[..whole.len() / 2]].concat()).unwrap();
        records.append(event(EventKind::Committed, "s")).unwrap();
        let kinds: Vec<_> = records.events().unwrap().iter().map(|e| e.event).collect();
        assert_eq!(kinds, [EventKind::Applied, EventKind::Committed]);
    }

    #[test]
    fn upd_41_events_of_newer_programs_are_kept_and_not_interpreted() {
        let dir = tempfile::tempdir().unwrap();
        let line = r#"{"time":1,"event":"teleported","slot":"a","generation":1,"version":"1","system":"s","planet":3}"#;
        fs::write(dir.path().join("history.jsonl"), line).unwrap();
        assert_eq!(Records::in_dir(dir.path(), "").events().unwrap()[0].event, EventKind::Unknown);
    }

    #[test]
    fn upd_40_the_floor_only_rises() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::in_dir(dir.path(), "");
        assert_eq!(records.floor(), 0);
        records.raise_floor(3).unwrap();
        records.raise_floor(2).unwrap();
        assert_eq!(records.floor(), 3);
        fs::write(dir.path().join("floor"), "nonsense").unwrap();
        assert_eq!(records.floor(), 0, "a spoilt record falls back to the committed entries");
        assert!(records.problem().unwrap().contains("nonsense"), "and that is said");
    }

    #[test]
    fn upd_60_without_var_nothing_is_recorded_and_that_is_said() {
        let records = Records::none();
        assert!(matches!(records.append(event(EventKind::Applied, "s")), Err(HistoryError::NoVar)));
        assert_eq!(records.events().unwrap(), []);
        assert_eq!(records.floor(), 0);
    }
}
