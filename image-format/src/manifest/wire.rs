//! The manifest as JSON spells it: field names, field order (IMG-18) and presence, nothing more. Values are checked in `check`.

use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};

use super::{Content, ManifestError, PayloadKind};
use crate::arch::Architecture;
use crate::digest::{Digest, serde_hex};
use crate::json::Object;
use crate::verity;

/// The top-level fields that are understood here, for `critical`.
pub(super) const KNOWN_FIELDS: [&str; 13] = [
    "format",
    "os-id",
    "version",
    "architecture",
    "compatible",
    "epoch",
    "min-updater",
    "title",
    "options",
    "payloads",
    "slot-bytes",
    "esp-bytes",
    "critical",
];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Manifest {
    format: u64,
    os_id: String,
    version: String,
    architecture: String,
    compatible: Vec<String>,
    epoch: u64,
    min_updater: String,
    title: String,
    options: String,
    payloads: Vec<Object<Payload>>,
    slot_bytes: u64,
    esp_bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    critical: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    name: String,
    kind: String,
    required: bool,
    size: u64,
    #[serde(with = "serde_hex")]
    sha256: Digest,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    verity: Option<Object<Verity>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    machine: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Verity {
    #[serde(with = "serde_hex")]
    root_hash: Digest,
    #[serde(with = "serde_hex")]
    salt: [u8; 32],
    uuid: String,
    data_blocks: u64,
    hash_offset: u64,
}

/// A field that may be absent but, when it is there, is not `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl<T: Serialize> Serialize for Object<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl Manifest {
    pub(super) fn into_content(self) -> Result<Content, ManifestError> {
        // Format and critical fields come first: in a future format everything else may mean something else.
        if self.format != 1 {
            return Err(ManifestError::Format(self.format));
        }
        if let Some(unknown) = self.critical.iter().find(|name| !KNOWN_FIELDS.contains(&name.as_str())) {
            return Err(ManifestError::Critical(unknown.clone()));
        }
        let payloads = self.payloads.into_iter().enumerate();
        Ok(Content {
            os_id: self.os_id,
            version: self.version,
            architecture: self.architecture.parse()?,
            compatible: self.compatible,
            epoch: u32::try_from(self.epoch).map_err(|_| field("epoch", "is above 4294967295"))?,
            min_updater: self.min_updater.parse().map_err(|bad| field("min-updater", bad))?,
            title: self.title,
            options: self.options,
            payloads: payloads.map(|(index, payload)| payload.0.into_content(index)).collect::<Result<_, _>>()?,
            slot_bytes: self.slot_bytes,
            esp_bytes: self.esp_bytes,
            critical: self.critical,
        })
    }

    pub(super) fn from_content(content: &Content) -> Self {
        Self {
            format: 1,
            os_id: content.os_id.clone(),
            version: content.version.clone(),
            architecture: content.architecture.to_string(),
            compatible: content.compatible.clone(),
            epoch: content.epoch.into(),
            min_updater: content.min_updater.to_string(),
            title: content.title.clone(),
            options: content.options.clone(),
            payloads: content.payloads.iter().map(|payload| Object(Payload::from_content(payload))).collect(),
            slot_bytes: content.slot_bytes,
            esp_bytes: content.esp_bytes,
            critical: content.critical.clone(),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut body = serde_json::to_vec_pretty(self).expect("strings, integers and booleans always serialise");
        body.push(b'\n');
        body
    }
}

impl Payload {
    fn into_content(self, index: usize) -> Result<super::Payload, ManifestError> {
        let at = |name: &str| format!("payloads[{index}].{name}");
        if self.verity.is_some() != (self.kind == "root") {
            return Err(field(at("verity"), "must be there exactly for kind \"root\""));
        }
        if self.machine.is_some() != ["linux", "uki"].contains(&self.kind.as_str()) {
            return Err(field(at("machine"), "must be there exactly for kinds \"linux\" and \"uki\""));
        }
        let machine = self
            .machine
            .map(|text| text.parse::<Architecture>().map_err(|bad| field(at("machine"), format!("is an {bad}"))));
        let kind = match (self.kind.as_str(), self.verity, machine.transpose()?) {
            ("root", Some(Object(verity)), _) => PayloadKind::Root(verity.into_content(&at("verity"))?),
            ("linux", _, Some(machine)) => PayloadKind::Linux { machine },
            ("uki", _, Some(machine)) => PayloadKind::Uki { machine },
            ("initrd", ..) => PayloadKind::Initrd,
            _ => PayloadKind::Unknown(self.kind),
        };
        Ok(super::Payload { name: self.name, kind, required: self.required, size: self.size, sha256: self.sha256 })
    }

    fn from_content(payload: &super::Payload) -> Self {
        Self {
            name: payload.name.clone(),
            kind: payload.kind.as_str().to_owned(),
            required: payload.required,
            size: payload.size,
            sha256: payload.sha256,
            verity: match &payload.kind {
                PayloadKind::Root(verity) => Some(Object(Verity::from_content(verity))),
                _ => None,
            },
            machine: match &payload.kind {
                PayloadKind::Linux { machine } | PayloadKind::Uki { machine } => Some(machine.to_string()),
                _ => None,
            },
        }
    }
}

impl Verity {
    fn into_content(self, at: &str) -> Result<verity::Verity, ManifestError> {
        Ok(verity::Verity {
            root_hash: self.root_hash,
            salt: self.salt,
            uuid: self.uuid.parse().map_err(|bad| field(format!("{at}.uuid"), bad))?,
            data_blocks: self.data_blocks,
            hash_offset: self.hash_offset,
        })
    }

    fn from_content(verity: &verity::Verity) -> Self {
        Self {
            root_hash: verity.root_hash,
            salt: verity.salt,
            uuid: verity.uuid.to_string(),
            data_blocks: verity.data_blocks,
            hash_offset: verity.hash_offset,
        }
    }
}

fn field(field: impl Into<String>, problem: impl ToString) -> ManifestError {
    ManifestError::Field { field: field.into(), problem: problem.to_string() }
}
