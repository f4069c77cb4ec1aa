//! Evidence (HLT-40): what the health check saw in each boot of a trial, kept in `/var` and read from either slot.
//!
//! The health check writes with these types, and `ralph-update explain` reads with them. A reader meets files of older and
//! newer programs: what is missing is empty, what is unknown is passed over, and words stay words.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use disk_layout::Slot;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The folder of evidence inside the records' folder (`/var/lib/ralph-update`).
pub const EVIDENCE_DIR: &str = "evidence";
/// The `format` of [`Evidence`].
pub const FORMAT: u32 = 1;
/// Bytes of a file that is still read; writers stay below 256 KiB (HLT-40).
pub const FILE_MAX: u64 = 1 << 20;
/// Files that are read, the newest; writers keep 32 (HLT-40).
const FILES_MAX: usize = 256;

/// What one boot of a trial came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Evidence {
    /// [`FORMAT`].
    pub format: u32,
    /// The booted entry's slot; none when a reader cannot tell.
    #[serde(serialize_with = "slot_text", deserialize_with = "slot_if_known")]
    pub slot: Option<Slot>,
    /// Its generation.
    pub generation: u32,
    /// Its system id, 64 hex digits.
    pub system: String,
    /// Its OS version.
    pub version: String,
    /// DONE of the entry's counter.
    pub attempt: u32,
    /// Seconds since 1970, as the clock said.
    pub time: u64,
    /// The kernel's id of the boot; empty if it could not be read.
    pub boot_id: String,
    /// The verdict's word (HLT-52).
    pub verdict: String,
    /// Milliseconds from the kernel's start to the verdict.
    pub uptime_ms: u64,
    /// What the checks found.
    pub checks: Vec<CheckRecord>,
    /// The last 8 KiB of the kernel's log.
    pub kernel_log: String,
    /// How the boot before this one ended.
    pub previous_end: Option<PreviousEnd>,
    /// What else was said.
    pub notes: Vec<String>,
}

/// A check that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CheckRecord {
    /// Its name.
    pub name: String,
    /// `required` or `wanted`.
    pub level: String,
    /// `passed` or `failed`.
    pub verdict: String,
    /// How long it took.
    pub milliseconds: u64,
    /// How often it was tried.
    pub tries: u32,
    /// Why it failed, one of the words of HLT-52; none if it passed.
    pub reason: Option<String>,
    /// One line for people.
    pub detail: String,
    /// The last 2 KiB of its output.
    pub output: String,
    /// What it recorded (HLT-26).
    pub recorded: Option<String>,
}

impl CheckRecord {
    /// Did it fail?
    pub fn failed(&self) -> bool {
        self.verdict == "failed"
    }

    /// Must it pass before a commit?
    pub fn required(&self) -> bool {
        self.level != "wanted"
    }
}

/// How the boot before ended, as far as something kept it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PreviousEnd {
    /// `pstore` or `journal`.
    pub source: String,
    /// The last 4 KiB.
    pub text: String,
}

fn slot_text<S: Serializer>(slot: &Option<Slot>, serializer: S) -> Result<S::Ok, S::Error> {
    match slot {
        Some(slot) => serializer.collect_str(slot),
        None => serializer.serialize_none(),
    }
}

fn slot_if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Slot>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

/// `g<generation>-try<done>.json`; sorts by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// The entry's generation.
    pub generation: u32,
    /// DONE of its counter.
    pub attempt: u32,
}

impl FileName {
    /// Reads a name; `None` for any that we would not write (leading zeros, signs, other files).
    pub fn parse(name: &str) -> Option<Self> {
        let (generation, attempt) = name.strip_prefix('g')?.strip_suffix(".json")?.split_once("-try")?;
        let parsed = FileName { generation: generation.parse().ok()?, attempt: attempt.parse().ok()? };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}-try{}.json", self.generation, self.attempt)
    }
}

/// Why a file of evidence is not told.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// It cannot be read.
    #[error("the evidence in {} cannot be read", path.display())]
    Read {
        /// The file or the folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is far longer than any that is written.
    #[error("the evidence in {} is longer than {FILE_MAX} bytes, and so was not written by the health check", .0.display())]
    TooLong(PathBuf),
    /// It is not what a health check writes.
    #[error("the evidence in {} cannot be understood", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Reads the evidence in the folder `dir`, oldest first. No folder is no evidence; a folder that cannot be read is one
/// error with its path. Other files are passed over.
pub fn read(dir: &Path) -> Vec<(PathBuf, Result<Evidence, EvidenceError>)> {
    let names = match names(dir) {
        Ok(names) => names,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(source) => return vec![(dir.to_owned(), Err(EvidenceError::Read { path: dir.to_owned(), source }))],
    };
    let oldest = names.len().saturating_sub(FILES_MAX);
    let one = |name: &FileName| {
        let path = dir.join(name.to_string());
        let evidence = read_file(&path);
        (path, evidence)
    };
    names[oldest..].iter().map(one).collect()
}

fn names(dir: &Path) -> io::Result<Vec<FileName>> {
    let mut names = Vec::new();
    for item in fs::read_dir(dir)? {
        let item = item?;
        // A pipe of this name would hold the reader for ever.
        if item.file_type()?.is_file() {
            names.extend(item.file_name().to_str().and_then(FileName::parse));
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn read_file(path: &Path) -> Result<Evidence, EvidenceError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text))
        .map_err(|source| EvidenceError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > FILE_MAX {
        return Err(EvidenceError::TooLong(path.to_owned()));
    }
    parse(&text).map_err(|source| EvidenceError::Json { path: path.to_owned(), source })
}

/// Reads the content of a file.
///
/// # Errors
/// When it is no JSON object, or a field has another type than HLT-40 says.
pub fn parse(text: &[u8]) -> Result<Evidence, serde_json::Error> {
    serde_json::from_slice(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn evidence() -> Evidence {
        Evidence {
            format: FORMAT,
            slot: Some(Slot::B),
            generation: 7,
            attempt: 2,
            boot_id: "boot".into(),
            verdict: "record-and-reboot".into(),
            uptime_ms: 81_200,
            checks: vec![CheckRecord {
                name: "ralphd".into(),
                level: "required".into(),
                verdict: "failed".into(),
                reason: Some("deadline".into()),
                ..CheckRecord::default()
            }],
            previous_end: Some(PreviousEnd { source: "pstore".into(), text: "Kernel panic".into() }),
            ..Evidence::default()
        }
    }

    #[test]
    fn hlt_40_fields_have_the_names_of_the_specification() {
        let value = serde_json::to_value(evidence()).unwrap();
        let mut fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        let expected = "attempt boot-id checks format generation kernel-log notes previous-end slot system time \
                        uptime-ms verdict version";
        assert_eq!(fields.join(" "), expected);
        assert_eq!(value["slot"], "b");
        let mut fields: Vec<&str> = value["checks"][0].as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields.join(" "), "detail level milliseconds name output reason recorded tries verdict");
    }

    #[test]
    fn hlt_40_a_reader_tolerates_what_is_missing_and_what_is_unknown() {
        let text = br#"{"generation":3,"attempt":1,"slot":"z","planet":{"x":1},"checks":[{"name":"a","moon":2}]}"#;
        let read = parse(text).unwrap();
        assert_eq!((read.generation, read.attempt, read.slot), (3, 1, None));
        assert_eq!(read.checks[0].name, "a");
        assert!(!read.checks[0].failed() && read.checks[0].required());
    }

    #[test]
    fn hlt_40_files_are_read_oldest_first_and_a_spoilt_one_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        put("g7-try2.json", &serde_json::to_vec(&evidence()).unwrap());
        put("g7-try1.json", b"{\"generation\":");
        put("g6-try3.json", &vec![b' '; FILE_MAX as usize + 1]);
        put("g10-try1.json", b"{\"generation\":10}");
        put("g7-try02.json", b"{}");
        put("g7-try3.json.new", b"{}");
        fs::create_dir(dir.path().join("g9-try1.json")).unwrap();
        let found = read(dir.path());
        let names: Vec<_> = found.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["g6-try3.json", "g7-try1.json", "g7-try2.json", "g10-try1.json"]);
        assert!(matches!(found[0].1, Err(EvidenceError::TooLong(_))));
        assert!(matches!(found[1].1, Err(EvidenceError::Json { .. })));
        assert_eq!(*found[2].1.as_ref().unwrap(), evidence());
    }

    #[test]
    fn hlt_40_no_folder_is_no_evidence_and_an_unreadable_one_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("none")).is_empty());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(read(&file)[..], [(_, Err(EvidenceError::Read { .. }))]));
    }

    proptest! {
        #[test]
        fn hlt_40_names_come_back(generation: u32, attempt: u32) {
            let name = FileName { generation, attempt };
            prop_assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn hlt_40_any_bytes_never_panic(bytes: Vec<u8>, name: String) {
            let _ = parse(&bytes);
            let _ = FileName::parse(&name);
        }
    }
}
