//! One function for each parser that reads bytes somebody else wrote (THR-7): it takes any bytes, and panics when a property does not hold.
//!
//! The same functions run under a coverage-guided fuzzer (`../fuzz`), and in `cargo test` over the seeds and some thousand blind
//! mutations of them. A property is more than "does not crash": what is accepted round-trips, lies within its bounds, and means the same
//! however it is cut or ordered.

mod boot;
mod config;
mod delta;
mod disk;
mod download;
mod fat;
mod files;
mod firmware;
mod image;
pub mod mutate;
// How an image is taken apart, changed and signed again.
#[path = "../../image-format/tests/common/mod.rs"]
mod parts;
mod slot_map;
mod sparse;

pub use boot::{boot_entry, entry_names, guard_record, loader};
pub use config::{health_config, http_answer, update_config};
pub use delta::{delta_chunk, delta_list, delta_table};
pub use disk::gpt;
pub use download::download_answer;
pub use fat::fat;
pub use files::file_map;
pub use firmware::{secure_boot, unified_image};
pub use image::{chunk_stream, chunk_table, image_head, manifest};
pub use slot_map::slot_map;

/// A named seed.
pub type Seed = (&'static str, Vec<u8>);

/// A parser to break.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also that of its file in `fuzz/fuzz_targets` and of its folder in `fuzz/seeds`.
    pub name: &'static str,
    /// Panics when a property does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made by the writers of the same formats.
    pub seeds: fn() -> Vec<Seed>,
    /// Longer inputs are not tried.
    pub max_len: usize,
}

/// All of them.
pub const TARGETS: [Target; 21] = [
    Target { name: "image_head", run: image_head, seeds: image::head_seeds, max_len: 16 << 10 },
    Target { name: "chunk_table", run: chunk_table, seeds: image::table_seeds, max_len: 4 << 10 },
    Target { name: "chunk_stream", run: chunk_stream, seeds: image::stream_seeds, max_len: 16 << 10 },
    Target { name: "delta_table", run: delta_table, seeds: delta::table_seeds, max_len: 4 << 10 },
    Target { name: "delta_chunk", run: delta_chunk, seeds: delta::delta_seeds, max_len: 16 << 10 },
    Target { name: "delta_list", run: delta_list, seeds: delta::list_seeds, max_len: 4 << 10 },
    Target { name: "slot_map", run: slot_map, seeds: slot_map::map_seeds, max_len: 4 << 10 },
    Target { name: "manifest", run: manifest, seeds: image::manifest_seeds, max_len: 8 << 10 },
    Target { name: "entry_names", run: entry_names, seeds: boot::name_seeds, max_len: 256 },
    Target { name: "boot_entry", run: boot_entry, seeds: boot::entry_seeds, max_len: 5000 },
    Target { name: "loader", run: loader, seeds: boot::loader_seeds, max_len: 4 << 10 },
    Target { name: "guard_record", run: guard_record, seeds: boot::guard_seeds, max_len: 600 },
    Target { name: "gpt", run: gpt, seeds: disk::gpt_seeds, max_len: 2 << 10 },
    Target { name: "fat", run: fat, seeds: fat::fat_seeds, max_len: 16 << 10 },
    Target { name: "file_map", run: file_map, seeds: files::file_map_seeds, max_len: 16 << 10 },
    Target { name: "secure_boot", run: secure_boot, seeds: firmware::secure_boot_seeds, max_len: 8 << 10 },
    Target { name: "unified_image", run: unified_image, seeds: firmware::unified_image_seeds, max_len: 8 << 10 },
    Target { name: "health_config", run: health_config, seeds: config::health_seeds, max_len: 4 << 10 },
    Target { name: "update_config", run: update_config, seeds: config::update_seeds, max_len: 1 << 10 },
    Target { name: "http_answer", run: http_answer, seeds: config::http_seeds, max_len: 4 << 10 },
    Target { name: "download_answer", run: download_answer, seeds: download::download_seeds, max_len: 4 << 10 },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
