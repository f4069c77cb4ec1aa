//! The manifest: the signed description of what is in an image (IMG-10 to IMG-18).

mod check;
mod unknown;
mod wire;

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use crate::arch::{Architecture, UnknownArchitecture};
use crate::digest::Digest;
use crate::json::{self, JsonError};
use crate::verity::Verity;

pub use check::{RESERVED_OPTION_KEYS, check_options};
pub use unknown::unknown_fields;

/// A manifest that has passed every check of IMG-11 to IMG-16 and IMG-20 to IMG-22. Its fields are read through [`Content`].
///
/// Parsing drops unknown fields, so [`Manifest::to_json`] does not restore the exact bytes: whoever needs the system id takes it from
/// the bytes of the file (IMG-17), and [`unknown_fields`] names what was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest(Content);

/// What a manifest says. As a value of its own it has not been checked; [`Manifest::new`] does that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// As in os-release `ID`.
    pub os_id: String,
    /// Version, ordered by UAPI.10.
    pub version: String,
    /// The architecture it runs on.
    pub architecture: Architecture,
    /// Hardware the image fits; empty means any.
    pub compatible: Vec<String>,
    /// Security epoch, at least 1.
    pub epoch: u32,
    /// The least version of the updater that may apply it.
    pub min_updater: UpdaterVersion,
    /// Boot menu title.
    pub title: String,
    /// Kernel options of the image; the slot's own are added by the updater.
    pub options: String,
    /// What is inside, in file order; `root` is first.
    pub payloads: Vec<Payload>,
    /// Bytes of slot used: root, verity superblock and tree.
    pub slot_bytes: u64,
    /// Bytes that go to the ESP: the sizes of `linux` and `initrd` together, or of `uki`.
    pub esp_bytes: u64,
    /// Names of top-level fields that a reader must understand; empty when the field is absent.
    pub critical: Vec<String>,
}

/// One thing inside an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Its name, distinct within the image.
    pub name: String,
    /// What it is.
    pub kind: PayloadKind,
    /// Whether a reader must know its kind. True for every kind known here.
    pub required: bool,
    /// Plain size in bytes, at least 1.
    pub size: u64,
    /// SHA-256 of the plain bytes.
    pub sha256: Digest,
}

/// What a payload is, with what only that kind carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadKind {
    /// The root filesystem, protected by dm-verity.
    Root(Verity),
    /// The kernel; `machine` was read from its PE header by the builder.
    Linux {
        /// The architecture in its PE header.
        machine: Architecture,
    },
    /// The initial RAM disk.
    Initrd,
    /// A unified kernel image: kernel, initrd and command line in one program, in place of the two kinds above (IMG-19).
    Uki {
        /// The architecture in its PE header.
        machine: Architecture,
    },
    /// A kind from the future, not required: authenticated and discarded (IMG-14).
    Unknown(String),
}

impl PayloadKind {
    /// The name in the manifest.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Root(_) => "root",
            Self::Linux { .. } => "linux",
            Self::Initrd => "initrd",
            Self::Uki { .. } => "uki",
            Self::Unknown(name) => name,
        }
    }
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not strict JSON with the fields of IMG-12 (IMG-11).
    #[error("it is not JSON as the format wants it (IMG-11)")]
    Json(#[source] JsonError),
    /// Longer than the file format can carry.
    #[error("the manifest has {0} bytes, more than 1048576 (IMG-2)")]
    TooLong(usize),
    /// Another `format`.
    #[error("manifest format {0} is not supported, only 1: a newer version of this program is needed (IMG-12)")]
    Format(u64),
    /// A `critical` field that is not known here.
    #[error("the manifest needs a reader that understands {0:?}: a newer version of this program is needed (IMG-12)")]
    Critical(String),
    /// A field with a value out of its limits.
    #[error("manifest field `{field}` {problem} (IMG-12)")]
    Field {
        /// Which one, as `payloads[1].name`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A kernel option that belongs to the updater.
    #[error(
        "`options` carries the reserved key {0:?}: root, verity and ralph.* options are written by the updater (IMG-16)"
    )]
    ReservedOption(String),
    /// A required payload of a kind that is not known here.
    #[error(
        "required payload {name:?} is of the unknown kind {kind:?}: a newer version of this program is needed (IMG-14)"
    )]
    UnknownRequired {
        /// Its name.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// The set of payloads is not one `root` first and what boots it, all required.
    #[error("payloads: {0} (IMG-14)")]
    Payloads(String),
    /// The kernel is for another machine than the manifest says.
    #[error("the kernel's machine is {machine} but `architecture` is {architecture} (IMG-15)")]
    Machine {
        /// In the payload.
        machine: Architecture,
        /// In the manifest.
        architecture: Architecture,
    },
    /// The verity object contradicts the root payload.
    #[error("verity: {0} (IMG-20)")]
    Verity(String),
    /// A sum does not come out.
    #[error("`{field}` is {found} but must be {expected} ({rule})")]
    Sum {
        /// The field.
        field: &'static str,
        /// In the manifest.
        found: u64,
        /// What the payloads give.
        expected: u64,
        /// The rule that says so.
        rule: &'static str,
    },
}

impl Manifest {
    /// Checks `content` and makes it a manifest.
    ///
    /// # Errors
    /// Names the first field that breaks a rule.
    pub fn new(content: Content) -> Result<Self, ManifestError> {
        check::content(&content)?;
        Ok(Self(content))
    }

    /// Reads a manifest body. Unknown fields are ignored, unless `critical` names them.
    ///
    /// # Errors
    /// Refuses what IMG-11 to IMG-16 and IMG-20 to IMG-22 tell a reader to refuse.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > crate::frame::MAX_MANIFEST {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let wire: wire::Manifest = json::parse_object(bytes).map_err(ManifestError::Json)?;
        Self::new(wire.into_content()?)
    }

    /// The body as the builder writes it (IMG-18): two spaces of indentation, keys in the order of the specification, one final newline.
    pub fn to_json(&self) -> Vec<u8> {
        wire::Manifest::from_content(&self.0).to_json()
    }

    /// The root payload and its verity data.
    pub fn root(&self) -> (&Payload, &Verity) {
        self.payloads
            .iter()
            .find_map(|payload| match &payload.kind {
                PayloadKind::Root(verity) => Some((payload, verity)),
                _ => None,
            })
            .expect("a checked manifest has a root payload")
    }

    /// What boots it.
    pub fn boot(&self) -> Boot<'_> {
        let of_kind = |wanted: &str| self.payloads.iter().find(|payload| payload.kind.as_str() == wanted);
        match (of_kind("linux"), of_kind("initrd"), of_kind("uki")) {
            (Some(linux), Some(initrd), _) => Boot::Kernel { linux, initrd },
            (_, _, Some(uki)) => Boot::Uki(uki),
            _ => unreachable!("a checked manifest has what boots it"),
        }
    }

    /// The content, to change and check again.
    pub fn into_content(self) -> Content {
        self.0
    }
}

impl Deref for Manifest {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.0
    }
}

/// The payloads that go to the ESP, of a manifest that was checked (IMG-14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot<'m> {
    /// Two files.
    Kernel {
        /// The kernel.
        linux: &'m Payload,
        /// The initial RAM disk.
        initrd: &'m Payload,
    },
    /// One file, a unified kernel image.
    Uki(&'m Payload),
}

impl Boot<'_> {
    /// Their sizes in bytes.
    pub fn sizes(&self) -> Vec<u64> {
        match self {
            Self::Kernel { linux, initrd } => vec![linux.size, initrd.size],
            Self::Uki(uki) => vec![uki.size],
        }
    }
}

/// A version of the updater: three integers, compared one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpdaterVersion(pub u32, pub u32, pub u32);

impl fmt::Display for UpdaterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Text that is not three dot-separated integers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not three dot-separated integers below 2^32 without leading zeros")]
pub struct BadUpdaterVersion(pub String);

impl FromStr for UpdaterVersion {
    type Err = BadUpdaterVersion;

    fn from_str(text: &str) -> Result<Self, BadUpdaterVersion> {
        let number = |part: &str| {
            let canonical = part == "0" || !part.starts_with('0');
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            (canonical && digits).then(|| part.parse::<u32>().ok()).flatten()
        };
        let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
        match parts.as_deref() {
            Some(&[major, minor, patch]) => Ok(Self(major, minor, patch)),
            _ => Err(BadUpdaterVersion(text.to_owned())),
        }
    }
}

impl From<UnknownArchitecture> for ManifestError {
    fn from(unknown: UnknownArchitecture) -> Self {
        Self::Field { field: "architecture".to_owned(), problem: format!("is an {unknown}") }
    }
}

#[cfg(test)]
pub(crate) mod tests;
