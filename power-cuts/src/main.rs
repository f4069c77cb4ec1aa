//! `power-cuts`: see `specs/power-cuts.md`.
fn main() {}
