//! The loader model against the loaders: what `boot-entries` says systemd-boot 252 and 257 will do with an ESP, and what
//! they do (LDR-1 to LDR-10), on the real firmware.

mod compare;
mod random;
mod rig;
mod state;
mod table;
