//! `ralph-image inspect`: what an image says about itself.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use image_format::{Chunk, Claims, RecordAlgorithm, SignatureRecord, unknown_fields};
use serde_json::{Value, json};

use crate::against::Fetch;
use crate::delta::show;
use crate::output;
use crate::remarks::remarks;
use crate::source;

/// Show what an image says about itself: manifest, payloads, chunks, signatures
///
/// Nothing of it is verified: anybody can write such a file. `ralph-image verify` tells whether it is to be trusted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image; "-" is standard input.
    image: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Also tell how much a machine would fetch of it whose slot holds this image.
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let image = source::open(&args.image)?;
    let claims = image.claims().with_context(|| format!("{} contradicts itself", args.image.display()))?;
    if let Some(base) = claims.transport.base {
        if args.against.is_some() {
            bail!("{} is a delta: what is fetched of it is all of it", args.image.display());
        }
        return show::inspect(&image, &claims, base, &args.image, args.json);
    }
    let file_len = image.data_start() + claims.transport.data_len;
    let records = image.signatures().records();
    let fetch = match &args.against {
        None => None,
        Some(path) => {
            let old = source::open(path)?.claims().with_context(|| format!("{} contradicts itself", path.display()))?;
            Some(Fetch::of(&claims, image.data_start(), &old))
        }
    };
    let text = if args.json {
        let mut json = as_json(&claims, image.claimed_manifest_bytes(), records, file_len)?;
        if let Some(fetch) = &fetch {
            json["against"] = fetch.to_json();
        }
        ascii(&format!("{json:#}\n"))
    } else {
        let name = args.image.display().to_string();
        let mut text = as_text(&name, &claims, &remarks(&image, &claims.manifest)?, records, file_len);
        if let (Some(fetch), Some(old)) = (&fetch, &args.against) {
            text.push_str(&fetch.to_text(&old.display().to_string()));
        }
        text
    };
    output::print(text.as_bytes())
}

/// What there is to say about the chunks of a payload.
#[derive(Debug, PartialEq)]
struct Chunks {
    count: usize,
    plain: Spread,
    encoded: Spread,
}

#[derive(Debug, PartialEq)]
struct Spread {
    min: u64,
    mean: u64,
    max: u64,
    sum: u64,
}

impl Spread {
    fn of(lengths: impl Iterator<Item = u32> + Clone) -> Spread {
        let sum: u64 = lengths.clone().map(u64::from).sum();
        let count = lengths.clone().count().max(1) as u64;
        let (min, max) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
        Spread { min: min.into(), mean: sum / count, max: max.into(), sum }
    }
}

impl Chunks {
    fn of(chunks: &[Chunk], payload: usize) -> Chunks {
        let own = || chunks.iter().filter(move |chunk| usize::from(chunk.payload) == payload);
        Chunks {
            count: own().count(),
            plain: Spread::of(own().map(|chunk| chunk.plain_len)),
            encoded: Spread::of(own().map(|chunk| chunk.encoded_len)),
        }
    }

    /// Encoded bytes for each plain byte.
    fn ratio(&self) -> f64 {
        self.encoded.sum as f64 / self.plain.sum.max(1) as f64
    }
}

pub fn algorithm(record: &SignatureRecord) -> String {
    match record.algorithm {
        RecordAlgorithm::Ed25519 => "ed25519".to_owned(),
        RecordAlgorithm::Unknown(number) => format!("unknown ({number})"),
    }
}

/// `manifest` is the body as it stands in the file: what a reader ignores is signed, too, and must be seen.
fn as_json(claims: &Claims, manifest: &[u8], records: &[SignatureRecord], file_len: u64) -> Result<Value> {
    let unknown = unknown_fields(manifest).context("cannot show the manifest")?;
    // Strict already (IMG-11): no duplicate key hides another here.
    let manifest: Value = serde_json::from_slice(manifest).context("cannot show the manifest")?;
    let spread = |s: Spread| json!({ "min": s.min, "mean": s.mean, "max": s.max, "sum": s.sum });
    let payloads: Vec<Value> = claims
        .manifest
        .payloads
        .iter()
        .enumerate()
        .map(|(index, payload)| {
            let chunks = Chunks::of(&claims.chunks, index);
            let ratio = chunks.ratio();
            let Chunks { count, plain, encoded } = chunks;
            let (plain, encoded) = (spread(plain), spread(encoded));
            json!({ "name": payload.name, "chunks": count, "plain": plain, "encoded": encoded, "ratio": ratio })
        })
        .collect();
    let signatures: Vec<Value> = records
        .iter()
        .map(|r| {
            let (role, key_id) = (r.role.to_string(), r.key_id.to_string());
            json!({ "role": role, "algorithm": algorithm(r), "key_id": key_id })
        })
        .collect();
    Ok(json!({
        "format": 1,
        "verified": false,
        "system_id": claims.system_id.to_string(),
        "file_bytes": file_len,
        "manifest": manifest,
        "unknown_fields": unknown,
        "chunk_statistics": payloads,
        "signatures": signatures,
    }))
}

/// JSON text in ASCII alone: in strings, where alone other characters stand, they could drive a terminal.
pub fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | ' '..='~' => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text
}

fn as_text(name: &str, claims: &Claims, remarks: &[String], records: &[SignatureRecord], file_len: u64) -> String {
    let m = &claims.manifest;
    let (_, verity) = m.root();
    let mut text = format!("{name}: NOT VERIFIED, this is what the file says about itself\n");
    // Writing to a String cannot fail.
    let mut line = |label: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {label:12} {value}");
    };
    line("system id", &claims.system_id);
    line("system", &format_args!("{} {} for {}, epoch {}", m.os_id, m.version, m.architecture, m.epoch));
    line("title", &m.title);
    line("options", &if m.options.is_empty() { "-" } else { &m.options });
    let hardware = if m.compatible.is_empty() { "any".to_owned() } else { m.compatible.join(" ") };
    line("hardware", &hardware);
    line("needs", &format_args!("ralph-update {} or newer", m.min_updater));
    line("root hash", &verity.root_hash);
    line("in the slot", &output::size(m.slot_bytes));
    line("on the ESP", &output::size(m.esp_bytes));
    line("file", &format_args!("{} ({file_len} bytes)", output::size(file_len)));
    for remark in remarks {
        line("!!", remark);
    }
    let _ = writeln!(
        text,
        "\n  payload      size          chunks   plain min/mean/max         encoded min/mean/max       ratio"
    );
    for (index, payload) in m.payloads.iter().enumerate() {
        let chunks = Chunks::of(&claims.chunks, index);
        let range = |s: &Spread| [s.min, s.mean, s.max].map(short).join("/");
        let _ = writeln!(
            text,
            "  {:12} {:13} {:6}   {:26} {:26} {:.3}",
            payload.name,
            output::size(payload.size),
            chunks.count,
            range(&chunks.plain),
            range(&chunks.encoded),
            chunks.ratio(),
        );
        let (kind, required) = (payload.kind.as_str(), if payload.required { "required" } else { "not required" });
        let _ = writeln!(text, "    kind {kind}, {required}, sha256 {}", payload.sha256);
    }
    text.push('\n');
    if records.is_empty() {
        text.push_str("  not signed\n");
    }
    for record in records {
        let _ = writeln!(
            text,
            "  claims a signature of the {:9} by {} ({})",
            record.role,
            record.key_id,
            algorithm(record)
        );
    }
    text
}

fn short(bytes: u64) -> String {
    output::size(bytes).replace(" KiB", "K").replace(" MiB", "M").replace(" bytes", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_ascii_is_the_same_json() {
        let value = json!({ "a\u{9b}31m": "\u{202e}\u{7f}\u{1f600}\n\"" });
        let text = ascii(&format!("{value:#}"));
        assert!(text.bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn statistics_of_chunks() {
        let chunk = |payload, plain_len, encoded_len| Chunk {
            payload,
            encoding: image_format::Encoding::Zstd,
            plain_len,
            plain_offset: 0,
            encoded_offset: 0,
            encoded_len,
            plain_sha256: image_format::Digest::of([]),
            encoded_sha256: image_format::Digest::of([]),
        };
        let chunks = Chunks::of(&[chunk(0, 4096, 100), chunk(0, 8192, 500), chunk(1, 7, 16)], 0);
        assert_eq!(chunks.count, 2);
        assert_eq!(chunks.plain, Spread { min: 4096, mean: 6144, max: 8192, sum: 12288 });
        assert_eq!(chunks.encoded, Spread { min: 100, mean: 300, max: 500, sum: 600 });
        assert_eq!(chunks.ratio(), 600.0 / 12288.0);
    }
}
