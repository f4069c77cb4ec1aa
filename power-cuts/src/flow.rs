//! The flow file: what a recorded flow may leave (`CUT-40`).

use boot_entries::options::{hex, parse_hex32};
use boot_entries::{EntryArchitecture, EntryName, Generation, LoaderVars};
use disk_layout::Slot;
use serde::{Deserialize, Serialize};

const FORMAT: &str = "power-cuts flow 1";
const NAME_MAX: usize = 64;

/// A system: a slot and what was staged in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct System {
    /// The slot.
    pub slot: Slot,
    /// The generation.
    pub generation: Generation,
}

impl System {
    /// True for a name of this system.
    pub fn is_named(self, name: EntryName) -> bool {
        (self.slot, self.generation) == (name.slot, name.generation)
    }
}

impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-g{}", self.slot, self.generation)
    }
}

/// What was recorded, and what may boot afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Its name: `[a-z0-9-]{1,64}`.
    pub name: String,
    /// The machine's architecture.
    pub architecture: EntryArchitecture,
    /// Systems that may boot before the flow.
    pub before: Vec<System>,
    /// Systems that may boot when it has ended.
    pub after: Vec<System>,
    /// Cut renames of the firmware are there or may come (`ENT-22`).
    pub firmware_renames: bool,
    /// SHA-256 of what the boot loader's own file may be besides what it is in the base (`CUT-37`).
    pub loader: Option<[u8; 32]>,
    /// What `loader/loader.conf` may hold besides what it holds in the base (`CUT-37`).
    pub loader_conf: Option<String>,
    /// The files that are in `loader/entries` when the flow has ended, no more and no less (`CUT-33`), where it says so.
    pub entries: Option<Vec<String>>,
    /// Where a trial may boot, what the loader falls back to is whole (`CUT-39`).
    pub fallback: bool,
    /// What the loader finds in its variables.
    pub vars: LoaderVars,
}

/// A flow file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// It is not JSON of this form.
    #[error("the flow file is not JSON of the form of CUT-40")]
    Json(#[source] serde_json::Error),
    /// A field has a value that cannot be.
    #[error("{field} of the flow file cannot be {value:?}")]
    Value {
        /// The field.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// Nothing may boot.
    #[error("{0} of the flow file names no system")]
    Empty(&'static str),
}

impl Flow {
    /// Reads a flow file.
    ///
    /// # Errors
    /// [`FlowError`].
    pub fn parse(bytes: &[u8]) -> Result<Flow, FlowError> {
        let wire: WireFlow = serde_json::from_slice(bytes).map_err(FlowError::Json)?;
        let bad = |field, value: &str| FlowError::Value { field, value: value.to_owned() };
        if wire.format != FORMAT {
            return Err(bad("format", &wire.format));
        }
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if wire.name.is_empty() || wire.name.len() > NAME_MAX || !wire.name.bytes().all(legal) {
            return Err(bad("name", &wire.name));
        }
        let architecture = match wire.architecture.as_str() {
            "x64" => EntryArchitecture::X64,
            "aa64" => EntryArchitecture::Aa64,
            other => return Err(bad("architecture", other)),
        };
        let systems = |field, wire: Vec<WireSystem>| -> Result<Vec<System>, FlowError> {
            if wire.is_empty() {
                return Err(FlowError::Empty(field));
            }
            wire.into_iter().map(|system| system.parse().ok_or_else(|| bad(field, &format!("{system:?}")))).collect()
        };
        let vars = wire.vars.unwrap_or_default();
        let loader = wire.loader.map(|text| parse_hex32(&text).ok_or_else(|| bad("loader", &text))).transpose()?;
        Ok(Flow {
            name: wire.name,
            architecture,
            before: systems("before", wire.before)?,
            after: systems("after", wire.after)?,
            firmware_renames: wire.firmware_renames,
            loader,
            loader_conf: wire.loader_conf,
            entries: wire.entries,
            fallback: wire.fallback,
            vars: LoaderVars { one_shot: vars.one_shot, default: vars.default, last_booted: vars.last_booted },
        })
    }

    /// The flow file.
    pub fn render(&self) -> Vec<u8> {
        let systems = |systems: &[System]| systems.iter().map(WireSystem::of).collect();
        let vars = WireVars {
            one_shot: self.vars.one_shot.clone(),
            default: self.vars.default.clone(),
            last_booted: self.vars.last_booted.clone(),
        };
        let wire = WireFlow {
            format: FORMAT.to_owned(),
            name: self.name.clone(),
            architecture: self.architecture.as_str().to_owned(),
            before: systems(&self.before),
            after: systems(&self.after),
            firmware_renames: self.firmware_renames,
            loader: self.loader.as_ref().map(|sha256| hex(sha256)),
            loader_conf: self.loader_conf.clone(),
            entries: self.entries.clone(),
            fallback: self.fallback,
            vars: Some(vars),
        };
        let mut bytes = serde_json::to_vec_pretty(&wire).expect("strings and numbers are JSON");
        bytes.push(b'\n');
        bytes
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireFlow {
    format: String,
    name: String,
    architecture: String,
    before: Vec<WireSystem>,
    after: Vec<WireSystem>,
    #[serde(default)]
    firmware_renames: bool,
    #[serde(default)]
    loader: Option<String>,
    #[serde(default)]
    loader_conf: Option<String>,
    #[serde(default)]
    entries: Option<Vec<String>>,
    #[serde(default = "yes")]
    fallback: bool,
    #[serde(default)]
    vars: Option<WireVars>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSystem {
    slot: String,
    generation: u32,
}

impl WireSystem {
    fn of(system: &System) -> WireSystem {
        WireSystem { slot: system.slot.to_string(), generation: system.generation.get() }
    }

    fn parse(&self) -> Option<System> {
        Some(System { slot: self.slot.parse().ok()?, generation: Generation::new(self.generation)? })
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct WireVars {
    one_shot: Option<String>,
    default: Option<String>,
    last_booted: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = r#"{"format": "power-cuts flow 1", "name": "first-apply", "architecture": "x64",
        "before": [{"slot": "a", "generation": 1}], "after": [{"slot": "b", "generation": 2}]}"#;

    #[test]
    fn cut40_a_flow_file_is_read_and_written() {
        let flow = Flow::parse(SHORT.as_bytes()).unwrap();
        assert_eq!(flow.before, [System { slot: Slot::A, generation: Generation::FIRST }]);
        assert_eq!(flow.after[0].to_string(), "b-g2");
        assert!(!flow.firmware_renames && flow.loader_conf.is_none() && flow.loader.is_none());
        assert!(flow.entries.is_none() && flow.fallback);
        assert_eq!(Flow::parse(&flow.render()).unwrap(), flow);
        let more = SHORT.replacen("\"name\"", "\"entries\": [\"ralphos-b-g2.conf\"], \"fallback\": false, \"name\"", 1);
        let more = Flow::parse(more.as_bytes()).unwrap();
        assert_eq!((more.entries.as_deref(), more.fallback), (Some(&["ralphos-b-g2.conf".to_owned()][..]), false));
        assert_eq!(Flow::parse(&more.render()).unwrap(), more);
        let loader = SHORT.replacen("\"name\"", &format!("\"loader\": \"{}\", \"name\"", "0a".repeat(32)), 1);
        let loader = Flow::parse(loader.as_bytes()).unwrap();
        assert_eq!(loader.loader, Some([10; 32]));
        assert_eq!(Flow::parse(&loader.render()).unwrap(), loader);
        assert!(flow.after[0].is_named("ralphos-b-g2+3-0.conf".parse().unwrap()));
    }

    #[test]
    fn cut40_what_is_not_of_the_form_is_refused() {
        for (from, to) in [
            ("flow 1", "flow 2"),
            ("first-apply", "../first"),
            ("x64", "mips"),
            ("\"generation\": 1", "\"generation\": 0"),
            ("\"slot\": \"a\"", "\"slot\": \"c\""),
            ("\"before\": [{\"slot\": \"a\", \"generation\": 1}]", "\"before\": []"),
            ("\"name\"", "\"extra\": 1, \"name\""),
            ("\"name\"", "\"loader\": \"0a0\", \"name\""),
        ] {
            let text = SHORT.replacen(from, to, 1);
            assert_ne!(text, SHORT);
            assert!(Flow::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
