//! What a manifest carries beyond the fields that every reader uses. It is signed all the same, so nobody should sign it unseen.

use anyhow::{Context, Result};
use image_format::{Manifest, PayloadKind, UnverifiedImage, unknown_fields};

/// More unknown fields than these are only counted.
const MOST: usize = 32;

/// What is odd about a manifest, a line each; nothing for most images. Names are quoted: they may hold any character.
pub fn remarks<R>(image: &UnverifiedImage<R>, manifest: &Manifest) -> Result<Vec<String>> {
    let unknown = unknown_fields(image.claimed_manifest_bytes()).context("cannot show the manifest")?;
    let mut lines: Vec<String> = unknown
        .iter()
        .take(MOST)
        .map(|name| format!("UNKNOWN FIELD {name:?}: signed with the rest, ignored by this version"))
        .collect();
    if unknown.len() > MOST {
        lines.push(format!("{} UNKNOWN FIELDS MORE: `inspect --json` shows all", unknown.len() - MOST));
    }
    for payload in &manifest.payloads {
        if let PayloadKind::Unknown(kind) = &payload.kind {
            lines.push(format!("PAYLOAD {:?} OF THE UNKNOWN KIND {kind:?}: no machine uses it", payload.name));
        }
    }
    if !manifest.critical.is_empty() {
        lines.push(format!("CRITICAL {:?}: readers that do not know these refuse the image", manifest.critical));
    }
    Ok(lines)
}

/// Tells whoever is about to sign, on standard error.
pub fn warn<R>(image: &UnverifiedImage<R>, manifest: &Manifest) -> Result<()> {
    for line in remarks(image, manifest)? {
        eprintln!("ralph-image: warning: {line}");
    }
    Ok(())
}
