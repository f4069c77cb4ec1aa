//! What `inspect` says of a delta.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use image_format::{Chunk, Claims, Encoding, SystemId, UnverifiedImage};
use serde_json::{Value, json};

use crate::inspect::{algorithm, ascii};
use crate::output;

/// Chunks of one encoding: how many, and their plain and encoded bytes.
fn sums(chunks: &[Chunk], encoding: Encoding) -> (usize, u64, u64) {
    let of = chunks.iter().filter(|chunk| chunk.encoding == encoding);
    of.fold((0, 0, 0), |(count, plain, encoded), chunk| {
        (count + 1, plain + u64::from(chunk.plain_len), encoded + u64::from(chunk.encoded_len))
    })
}

const NAMES: [(Encoding, &str); 3] = [(Encoding::Copy, "copy"), (Encoding::Patch, "patch"), (Encoding::Zstd, "whole")];

/// Shows what a delta says about itself.
pub fn inspect<R>(
    delta: &UnverifiedImage<R>,
    claims: &Claims,
    base: SystemId,
    path: &Path,
    as_json: bool,
) -> Result<()> {
    let file_len = delta.data_start() + claims.transport.data_len;
    let records = delta.signatures().records();
    let manifest = &claims.manifest;
    if as_json {
        let chunks: Value = NAMES
            .iter()
            .map(|(encoding, name)| {
                let (count, plain, encoded) = sums(&claims.chunks, *encoding);
                ((*name).to_owned(), json!({ "count": count, "plain": plain, "encoded": encoded }))
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        let body: Value = serde_json::from_slice(delta.claimed_manifest_bytes()).context("cannot show the manifest")?;
        let signatures: Vec<Value> = records
            .iter()
            .map(|r| json!({ "role": r.role.to_string(), "algorithm": algorithm(r), "key_id": r.key_id.to_string() }))
            .collect();
        let all = json!({
            "format": 1,
            "verified": false,
            "delta_from": base.to_string(),
            "system_id": claims.system_id.to_string(),
            "file_bytes": file_len,
            "head_bytes": delta.data_start(),
            "chunks": chunks,
            "manifest": body,
            "signatures": signatures,
        });
        return output::print(ascii(&format!("{all:#}\n")).as_bytes());
    }
    let mut text = format!("{}: NOT VERIFIED, this is what the file says about itself\n", path.display());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  a delta      from system {base}");
    let _ = writeln!(text, "  system id    {}", claims.system_id);
    let (id, version, arch) = (&manifest.os_id, &manifest.version, manifest.architecture);
    let _ = writeln!(text, "  system       {id} {version} for {arch}, epoch {}", manifest.epoch);
    let _ = writeln!(text, "  file         {} ({file_len} bytes)", output::size(file_len));
    let _ = writeln!(text, "  head         {}", output::size(delta.data_start()));
    for (encoding, name) in NAMES {
        let (count, plain, encoded) = sums(&claims.chunks, encoding);
        let (plain, encoded) = (output::size(plain), output::size(encoded));
        let _ = writeln!(text, "  {name:12} {count} chunks, {plain} plain, {encoded} encoded");
    }
    for record in records {
        let (role, key) = (record.role, record.key_id);
        let _ = writeln!(text, "  claims a signature of the {role:9} by {key} ({})", algorithm(record));
    }
    if records.is_empty() {
        text.push_str("  not signed\n");
    }
    output::print(text.as_bytes())
}
