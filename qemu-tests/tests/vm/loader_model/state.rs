//! One state of an ESP, and how it is written down.

use std::collections::BTreeMap;

use boot_entries::entry::Liveness;
use boot_entries::{BootOptions, Entry, EntryName, LoaderVars, OnCorruption, PayloadKind, Payloads};
use disk_layout::Slot;
use qemu_tests::loaders::Volume;

use crate::ARCH;

/// Headless and without what the loader adds by itself, as ENT-60 has it.
const CONF: &str = "timeout 0\neditor no\nauto-entries no\nauto-firmware no\nsecure-boot-enroll off\n";
pub const CONF_PATH: &str = "loader/loader.conf";
pub const ENTRIES: &str = "loader/entries";

/// What the comparison looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The loader does what the model says, and so does every release: the product has a prediction.
    Agreement,
    /// The loader does what the model says of its release; releases differ, so the product predicts nothing (LDR-9).
    ReleasesDiffer,
    /// Something is there that the model leaves out (LDR-8): the product predicts nothing, and only that is looked at.
    Refusal,
    /// The entry is chosen and counted as the model says, but what it names does not start (LDR-6).
    Parked,
    /// The loader stops for good, whatever else is there (LDR-10); the product predicts nothing.
    Halt,
    /// The loader does what the model says of its release; the product predicts that or nothing.
    Whatever,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct State {
    pub name: String,
    pub expect: Expect,
    /// What is on the ESP besides the loader.
    pub files: BTreeMap<String, Content>,
    /// What is on an XBOOTLDR partition of the same disk, if there is one.
    pub beside: Option<BTreeMap<String, Content>>,
    /// EFI variables.
    pub vars: Vec<(&'static str, String)>,
}

/// A file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    /// A program that the loader can start.
    Kernel,
    /// A program with an `.osrel` section: a unified kernel image.
    Unified,
}

impl State {
    /// An ESP with loader.conf and, for entries of others, a kernel `/k`.
    pub fn new(name: &str) -> Self {
        let state = Self {
            name: name.to_owned(),
            expect: Expect::Agreement,
            files: BTreeMap::new(),
            beside: None,
            vars: Vec::new(),
        };
        state.conf("").kernel("k")
    }

    pub fn expect(self, expect: Expect) -> Self {
        Self { expect, ..self }
    }

    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.to_owned(), Content::Bytes(content.as_ref().to_vec()));
        self
    }

    pub fn kernel(mut self, path: &str) -> Self {
        self.files.insert(path.to_owned(), Content::Kernel);
        self
    }

    pub fn unified(mut self, path: &str) -> Self {
        self.files.insert(path.to_owned(), Content::Unified);
        self
    }

    pub fn without(mut self, path: &str) -> Self {
        self.files.remove(path);
        self
    }

    /// More lines for loader.conf.
    pub fn conf(self, lines: impl AsRef<[u8]>) -> Self {
        self.file(CONF_PATH, [CONF.as_bytes(), lines.as_ref()].concat())
    }

    /// An entry of someone else.
    pub fn entry(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.file(&format!("{ENTRIES}/{name}"), content)
    }

    /// Entries that start `/k` and have nothing else.
    pub fn plain(self, names: &[&str]) -> Self {
        names.iter().fold(self, |state, name| state.entry(name, "linux /k\n"))
    }

    /// Entries named `e0.conf`, `e1.conf`, … with the same sort key and these lines.
    pub fn versions(self, lines: &[&str]) -> Self {
        lines.iter().enumerate().fold(self, |state, (n, line)| {
            state.entry(&format!("e{n}.conf"), format!("linux /k\nsort-key os\n{line}\n"))
        })
    }

    /// Systems of ours under these names: live entry, kernel and initrd.
    pub fn ours(self, names: &[&str]) -> Self {
        names.iter().fold(self, |state, name| state.system(name, Liveness::Live, "1.0.0"))
    }

    pub fn system(self, name: &str, liveness: Liveness, os_version: &str) -> Self {
        let parsed: EntryName = name.parse().expect("a name of ours");
        let entry = entry(parsed, os_version);
        self.kernel(entry.payload(PayloadKind::Linux).path().as_str())
            .file(entry.payload(PayloadKind::Initrd).path().as_str(), "an initrd")
            .entry(name, entry.render(liveness))
    }

    /// An XBOOTLDR partition with a kernel `/k` and these entries.
    pub fn xbootldr(mut self, entries: &[(&str, &str)]) -> Self {
        let mut files = BTreeMap::from([("k".to_owned(), Content::Kernel)]);
        for (name, content) in entries {
            files.insert(format!("{ENTRIES}/{name}"), Content::Bytes(content.as_bytes().to_vec()));
        }
        self.beside = Some(files);
        self
    }

    pub fn one_shot(self, value: &str) -> Self {
        self.var("LoaderEntryOneShot", value)
    }

    pub fn default(self, value: &str) -> Self {
        self.var("LoaderEntryDefault", value)
    }

    pub fn last_booted(self, value: &str) -> Self {
        self.var("LoaderEntryLastBooted", value)
    }

    fn var(mut self, name: &'static str, value: &str) -> Self {
        self.vars.push((name, value.to_owned()));
        self
    }

    /// The variables as the model takes them.
    pub fn loader_vars(&self) -> LoaderVars {
        let value = |name| self.vars.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone());
        LoaderVars {
            one_shot: value("LoaderEntryOneShot"),
            default: value("LoaderEntryDefault"),
            last_booted: value("LoaderEntryLastBooted"),
        }
    }

    /// The partition, with this loader.
    pub fn volume(&self, loader: &[u8], programs: &Programs) -> Volume {
        let vars: Vec<(&str, &str)> = self.vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut volume = Volume::with_loader(ARCH, &self.name, loader, &vars);
        fill(&mut volume, &self.files, programs);
        volume
    }

    /// The partition beside it.
    pub fn volume_beside(&self, programs: &Programs) -> Option<Volume> {
        let mut volume = Volume::default();
        fill(&mut volume, self.beside.as_ref()?, programs);
        Some(volume)
    }
}

/// What stands for [`Content::Kernel`] and [`Content::Unified`].
#[derive(Clone, Debug)]
pub struct Programs {
    pub kernel: Vec<u8>,
    pub unified: Vec<u8>,
}

fn fill(volume: &mut Volume, files: &BTreeMap<String, Content>, programs: &Programs) {
    for (path, content) in files {
        volume.put(
            path,
            match content {
                Content::Bytes(bytes) => bytes,
                Content::Kernel => &programs.kernel,
                Content::Unified => &programs.unified,
            },
        );
    }
}

/// An entry as the product writes it.
fn entry(name: EntryName, os_version: &str) -> Entry {
    Entry {
        title: "RalphOS".into(),
        architecture: ARCH.entry(),
        options: BootOptions {
            root_hash: [0x11; 32],
            partuuid: uuid::Uuid::from_u128(if name.slot == Slot::A { 0xa } else { 0xb }),
            hash_offset: 1 << 20,
            on_corruption: OnCorruption::Fail,
            slot: name.slot,
            generation: name.generation,
            system: [0x22; 32],
            epoch: 1,
            os_version: os_version.into(),
            failed: None,
            extra: "quiet".into(),
        },
        payloads: Payloads::Kernel { linux: [0x33; 32], initrd: [0x44; 32] },
    }
}
