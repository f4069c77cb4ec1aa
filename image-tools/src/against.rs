//! How much of an image a machine fetches that holds another one (CHK-10).

use std::collections::HashSet;

use image_format::{Chunk, Claims, Digest};
use serde_json::{Value, json};

use crate::output;

/// Bytes of a file that a machine fetches, and those that it need not.
#[derive(Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Manifest, signatures, transport and table.
    head: u64,
    /// Encoded bytes of root's chunks that are not in the old root,
    root: u64,
    /// and how many chunks those are.
    root_chunks: usize,
    /// Encoded bytes of the other payloads, which are always fetched.
    rest: u64,
    /// Plain bytes of root that the old root has.
    reused: u64,
    /// Stretches of the file that are fetched, the head apart.
    stretches: usize,
}

impl Fetch {
    /// What a machine fetches of `new`, whose data begins at `head`, when a slot of it holds `old`.
    pub fn of(new: &Claims, head: u64, old: &Claims) -> Fetch {
        // Root is the first payload (IMG-14).
        let has: HashSet<(Digest, u32)> = old.chunks.iter().filter(|c| c.payload == 0).map(key).collect();
        let mut fetch = Fetch { head, root: 0, root_chunks: 0, rest: 0, reused: 0, stretches: 0 };
        let mut fetched_before = false;
        for chunk in &new.chunks {
            let reused = chunk.payload == 0 && has.contains(&key(chunk));
            match (reused, chunk.payload) {
                (true, _) => fetch.reused += u64::from(chunk.plain_len),
                (false, 0) => {
                    fetch.root += u64::from(chunk.encoded_len);
                    fetch.root_chunks += 1;
                }
                (false, _) => fetch.rest += u64::from(chunk.encoded_len),
            }
            fetch.stretches += usize::from(!reused && !fetched_before);
            fetched_before = !reused;
        }
        fetch
    }

    fn total(&self) -> u64 {
        self.head + self.root + self.rest
    }

    pub fn to_json(&self) -> Value {
        json!({
            "fetched": self.total(),
            "head": self.head,
            "root": self.root,
            "root_chunks": self.root_chunks,
            "other_payloads": self.rest,
            "stretches": self.stretches,
            "reused_plain": self.reused,
        })
    }

    pub fn to_text(&self, old: &str) -> String {
        format!(
            "\n  a machine that holds {old} fetches {} ({} bytes) in {} stretches:\n    \
             head {}, {} chunks of root {}, the other payloads {}; it has {} of root\n",
            output::size(self.total()),
            self.total(),
            self.stretches,
            output::size(self.head),
            self.root_chunks,
            output::size(self.root),
            output::size(self.rest),
            output::size(self.reused),
        )
    }
}

fn key(chunk: &Chunk) -> (Digest, u32) {
    (chunk.plain_sha256, chunk.plain_len)
}
