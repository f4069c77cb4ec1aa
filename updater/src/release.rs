//! What the rest of the running system is told after a commit: `ralphd` may go on (HLT-3), and nobody ends this boot any more (HLT-36, GRD-23).

use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use boot_guard::{DROP_IN, GuardClient};

/// The sign that the booted slot is committed (HLT-3).
pub const COMMITTED: &str = "run/ralphos/committed";

/// How long the guard may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is told.
const TELLS: u32 = 3;
/// Pause between two.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes the sign below `root`. Its existence counts, the text is for people; nothing to sync: it ends with the boot.
///
/// # Errors
/// What the system said.
pub fn mark_committed(root: &Path, slot: impl Display, generation: u32) -> io::Result<()> {
    let path = root.join(COMMITTED);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, format!("slot {slot} generation {generation}\n"))
}

/// Ends the guard's watch, and takes back below `root` what it left to systemd, which `reload` tells. Returns what did not work.
pub fn disarm(client: &GuardClient, root: &Path, reload: &dyn Fn() -> Result<(), String>) -> Vec<String> {
    let mut notes = Vec::new();
    for told in 1..=TELLS {
        match client.disarm(ANSWER) {
            // That it does not watch any more is what was wanted.
            Ok(_) => break,
            Err(error) if told == TELLS => {
                notes.push(format!("the boot guard is still armed: {}", crate::exit::with_source(&error)));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
    let path = root.join(DROP_IN.trim_start_matches('/'));
    match fs::remove_file(&path) {
        Ok(()) => notes.extend(reload().err().map(|why| format!("systemd still has the trial's deadline: {why}"))),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => notes.push(format!("cannot remove {}: {error}", path.display())),
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_layout::Slot;

    #[test]
    fn hlt_3_ralphd_is_told_of_the_commit_and_nothing_ends_this_boot() {
        let root = tempfile::tempdir().unwrap();
        mark_committed(root.path(), Slot::B, 7).unwrap();
        assert_eq!(fs::read_to_string(root.path().join(COMMITTED)).unwrap(), "slot b generation 7\n");
        let drop_in = root.path().join(DROP_IN.trim_start_matches('/'));
        fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
        fs::write(&drop_in, "").unwrap();
        let nobody = GuardClient::named(&format!("ralphos-release-{}", std::process::id()));
        let told = disarm(&nobody, root.path(), &|| Err("no bus".to_owned()));
        assert_eq!(told, ["systemd still has the trial's deadline: no bus"]);
        assert!(!drop_in.exists());
        assert!(disarm(&nobody, root.path(), &|| Err("not asked".to_owned())).is_empty());
    }
}
