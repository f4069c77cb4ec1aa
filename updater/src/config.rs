//! The machine's policy and trusted keys: `/usr/lib/ralph-update` with `/etc/ralph-update` over it.
//!
//! A folder holds `update.toml` and `keys/*.pem`. A setting in `/etc` replaces the same setting of `/usr/lib`; a key
//! file in `/etc` replaces the one of the same name, and an empty one removes it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use image_format::{PublicKey, TrustPolicy};
use serde::Deserialize;

/// Where the image's own settings lie.
pub const VENDOR_DIR: &str = "/usr/lib/ralph-update";
/// Where the machine's settings lie.
pub const LOCAL_DIR: &str = "/etc/ralph-update";

const DEFAULT_MAX_EPOCH_STEP: u32 = 8;

/// What a policy file may set. Unknown keys are errors: a misspelt threshold must not become the default one.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    os_id: Option<String>,
    hardware: Option<Vec<String>>,
    threshold: Option<NonZeroUsize>,
    max_epoch_step: Option<u32>,
    mirrors: Option<Vec<String>>,
    proxy: Option<String>,
    limit_rate: Option<String>,
}

/// How this machine fetches images (specs/fetch.md), as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Further addresses of every image (FET-28).
    pub mirrors: Vec<String>,
    /// `none`, or a proxy's address (FET-29).
    pub proxy: Option<String>,
    /// FET-50.
    pub limit_rate: Option<String>,
}

/// What images this machine accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The only `os-id` accepted; `None` (a disk image file without configuration) accepts any.
    pub os_id: Option<String>,
    /// What this machine is, to be found among an image's `compatible` strings when it has any.
    pub hardware: Vec<String>,
    /// How many distinct trusted keys must have signed.
    pub threshold: NonZeroUsize,
    /// By how much an image's epoch may exceed the floor (UPD-40).
    pub max_epoch_step: u32,
    /// How they are fetched.
    pub network: Network,
}

impl Policy {
    /// With the settings of a file's text over these.
    ///
    /// # Errors
    /// Not TOML, a key that is not known, or a value that none can have.
    pub fn overlaid(self, text: &str) -> Result<Policy, toml::de::Error> {
        let file: File = toml::from_str(text)?;
        Ok(Policy {
            os_id: file.os_id.or(self.os_id),
            hardware: file.hardware.unwrap_or(self.hardware),
            threshold: file.threshold.unwrap_or(self.threshold),
            max_epoch_step: file.max_epoch_step.unwrap_or(self.max_epoch_step),
            network: Network {
                mirrors: file.mirrors.unwrap_or(self.network.mirrors),
                proxy: file.proxy.or(self.network.proxy),
                limit_rate: file.limit_rate.or(self.network.limit_rate),
            },
        })
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            os_id: None,
            hardware: Vec::new(),
            threshold: NonZeroUsize::MIN,
            max_epoch_step: DEFAULT_MAX_EPOCH_STEP,
            network: Network::default(),
        }
    }
}

/// Why policy or keys could not be had. A machine that cannot tell whom it trusts applies nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it must.
    #[error("{} is not a valid policy", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A setting has a value that none can have.
    #[error("the setting `{name}` of update.toml cannot be used")]
    Setting {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A key file does not hold an Ed25519 public key.
    #[error("{} is not a usable public key (an Ed25519 key in PEM, as `ralph-image keygen` writes NAME.pub.pem)", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: image_format::KeyError,
    },
    /// No key at all.
    #[error("no trusted keys: put NAME.pub.pem into {} or name one with --trust", looked.iter().map(|p| p.join("keys").display().to_string()).collect::<Vec<_>>().join(" or "))]
    NoKeys {
        /// The folders looked into.
        looked: Vec<PathBuf>,
    },
    /// The keys cannot meet the threshold.
    #[error("the trusted keys cannot satisfy the policy")]
    Trust {
        /// Why.
        source: image_format::PolicyError,
    },
}

/// Policy of `dirs`, later ones over earlier ones. Files that do not exist set nothing.
pub fn load_policy(dirs: &[&Path]) -> Result<Policy, ConfigError> {
    let mut policy = Policy::default();
    for dir in dirs {
        let path = dir.join("update.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        policy = policy.overlaid(&text).map_err(|e| ConfigError::Syntax { path, source: Box::new(e) })?;
    }
    Ok(policy)
}

/// The trusted keys: those named on the command line if any are, else those of `dirs`.
pub fn load_trust(dirs: &[&Path], named: &[PathBuf], threshold: NonZeroUsize) -> Result<TrustPolicy, ConfigError> {
    let files = if named.is_empty() { key_files(dirs)? } else { named.to_vec() };
    let mut keys = Vec::with_capacity(files.len());
    for path in files {
        let text = fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        keys.push(PublicKey::from_pem(&text).map_err(|source| ConfigError::Key { path, source })?);
    }
    if keys.is_empty() {
        return Err(ConfigError::NoKeys { looked: dirs.iter().map(|d| d.to_path_buf()).collect() });
    }
    TrustPolicy::new(keys, threshold).map_err(|source| ConfigError::Trust { source })
}

fn key_files(dirs: &[&Path]) -> Result<Vec<PathBuf>, ConfigError> {
    let mut by_name = BTreeMap::new();
    for dir in dirs {
        let keys = dir.join("keys");
        let listing = match fs::read_dir(&keys) {
            Ok(listing) => listing,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ConfigError::Read { path: keys, source }),
        };
        for item in listing {
            let path = item.map_err(|source| ConfigError::Read { path: keys.clone(), source })?.path();
            if path.extension().is_none_or(|e| e != "pem") {
                continue;
            }
            let Some(name) = path.file_name().map(|n| n.to_owned()) else { continue };
            let empty =
                fs::metadata(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?.len() == 0;
            if empty {
                by_name.remove(&name)
            } else {
                by_name.insert(name, path)
            };
        }
    }
    Ok(by_name.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn etc_stands_over_usr_lib_setting_by_setting() {
        let usr = dir_with(&[("update.toml", "os-id = \"ralphos\"\nthreshold = 2\n")]);
        let etc = dir_with(&[("update.toml", "hardware = [\"acme,box\"]\nthreshold = 1\n")]);
        let policy = load_policy(&[usr.path(), etc.path()]).unwrap();
        assert_eq!(policy.os_id.as_deref(), Some("ralphos"));
        assert_eq!(policy.hardware, ["acme,box"]);
        assert_eq!(policy.threshold.get(), 1);
        assert_eq!(policy.max_epoch_step, DEFAULT_MAX_EPOCH_STEP);
    }

    #[test]
    fn fet_28_how_to_fetch_is_set_like_everything_else() {
        let usr =
            dir_with(&[("update.toml", "mirrors = [\"http://a/\"]\nproxy = \"http://p:1\"\nlimit-rate = \"2M\"\n")]);
        let etc = dir_with(&[("update.toml", "proxy = \"none\"\nmirrors = []\n")]);
        let network = load_policy(&[usr.path(), etc.path()]).unwrap().network;
        let expected = Network { mirrors: Vec::new(), proxy: Some("none".into()), limit_rate: Some("2M".into()) };
        assert_eq!(network, expected);
    }

    #[test]
    fn an_unknown_key_is_an_error_and_names_the_file() {
        for text in ["treshold = 2", "threshold = 0", "[trust]", "os-id = 3"] {
            let dir = dir_with(&[("update.toml", text)]);
            let error = load_policy(&[dir.path()]).unwrap_err();
            assert!(error.to_string().contains("update.toml"), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_in_etc_replaces_and_an_empty_one_removes() {
        let usr = dir_with(&[("keys/one.pem", "1"), ("keys/two.pem", "2"), ("keys/README", "x")]);
        let etc = dir_with(&[("keys/one.pem", ""), ("keys/three.pem", "3")]);
        let names: Vec<_> = key_files(&[usr.path(), etc.path()])
            .unwrap()
            .into_iter()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["three.pem", "two.pem"]);
    }

    #[test]
    fn no_keys_is_an_error_that_says_where_to_put_them() {
        let dir = tempfile::tempdir().unwrap();
        let error = load_trust(&[dir.path()], &[], NonZeroUsize::MIN).unwrap_err().to_string();
        assert!(error.contains("keys") && error.contains("--trust"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let dir = dir_with(&[("keys/bad.pem", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")]);
        let error = load_trust(&[dir.path()], &[], NonZeroUsize::MIN).unwrap_err();
        assert!(matches!(&error, ConfigError::Key { path, .. } if path.ends_with("bad.pem")), "{error}");
    }
}
