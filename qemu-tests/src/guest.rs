//! The guest's operating system, made from Debian 13 packages: a base that every version shares ([`base`]), and
//! versions of it that differ as releases do ([`Release`]).

mod base;
mod checks;
pub(crate) mod cpio;
mod initrd;
mod initrd_systemd;
mod mirror;
mod release;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use base::{Base, Stub, apt_options, base, loader_252, loader_257, stub};
pub use mirror::{mirror, security_mirror};
pub(crate) use release::stripped;
pub use release::{Built, CarriedLoader, Initrd, Release, Unified};

/// A short name for `parts`: what is cached under it is made again when one of them changes.
pub(crate) fn fingerprint(parts: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Gives the folder `NAME-KEY` of the cache, made by `make` in a folder beside it when it is not there yet.
///
/// Test binaries may ask at once: one makes it, the others wait. It appears whole or not at all, and folders of the
/// same name with other keys, left from older recipes, are removed.
pub(crate) fn cached(name: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = crate::workspace::cache_dir()?;
    let dir = cache.join(format!("{name}-{key}"));
    let lock_path = cache.join(format!("{name}.lock"));
    let lock = std::fs::File::create(&lock_path).with_context(|| format!("cannot create {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    if dir.is_dir() {
        return Ok(dir);
    }
    for entry in std::fs::read_dir(&cache)?.flatten() {
        let other = entry.file_name();
        if other.to_string_lossy().strip_prefix(name).is_some_and(|rest| rest.starts_with('-')) {
            remove(&entry.path())?;
        }
    }
    let new = cache.join(format!("{name}-new"));
    std::fs::create_dir(&new).with_context(|| format!("cannot create {}", new.display()))?;
    make(&new)?;
    std::fs::rename(&new, &dir).with_context(|| format!("cannot rename to {}", dir.display()))?;
    Ok(dir)
}

/// Removes a file or a whole folder; what is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

/// Writes a new file at `path`, in folders made as needed. What stood there is unlinked first: it may be a hard link
/// into the shared tree, which must not change.
fn put(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    remove(path)?;
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
