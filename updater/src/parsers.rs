//! The parsers of what anybody may have written, as functions of bytes, for those who try to break them (THR-7).

/// Reads a slot map, and gives it as it would be written again; `None` for what is none (SLM-1, SLM-2).
pub fn slot_map(bytes: &[u8]) -> Option<Vec<u8>> {
    crate::slot_map::written_again(bytes)
}
