//! Fields that a reader ignores (IMG-12, IMG-13). They are signed like the others, so whoever signs should have seen them.

use serde_json::{Map, Value};

use super::ManifestError;
use super::wire::KNOWN_FIELDS;
use crate::json;

pub(super) const PAYLOAD_FIELDS: [&str; 7] = ["name", "kind", "required", "size", "sha256", "verity", "machine"];

pub(super) const VERITY_FIELDS: [&str; 5] = ["root-hash", "salt", "uuid", "data-blocks", "hash-offset"];

/// The fields of a manifest body that this version ignores, as `x`, `payloads[1].x` or `payloads[0].verity.x`. The names are those of
/// the file and may hold any character.
///
/// # Errors
/// Refuses what IMG-11 tells a reader to refuse.
pub fn unknown_fields(manifest: &[u8]) -> Result<Vec<String>, ManifestError> {
    let fields: Map<String, Value> = json::parse_object(manifest).map_err(ManifestError::Json)?;
    let mut unknown = Vec::new();
    others(&fields, &KNOWN_FIELDS, "", &mut unknown);
    let payloads = fields.get("payloads").and_then(Value::as_array);
    for (index, payload) in payloads.into_iter().flatten().enumerate() {
        let Some(payload) = payload.as_object() else { continue };
        others(payload, &PAYLOAD_FIELDS, &format!("payloads[{index}]."), &mut unknown);
        if let Some(verity) = payload.get("verity").and_then(Value::as_object) {
            others(verity, &VERITY_FIELDS, &format!("payloads[{index}].verity."), &mut unknown);
        }
    }
    Ok(unknown)
}

fn others(fields: &Map<String, Value>, known: &[&str], at: &str, unknown: &mut Vec<String>) {
    unknown.extend(fields.keys().filter(|name| !known.contains(&name.as_str())).map(|name| format!("{at}{name}")));
}
