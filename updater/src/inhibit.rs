//! A shutdown inhibitor over staging and commit: an orderly shutdown waits for the few writes that change which
//! system boots. A power cut does not ask, which is why the order of those writes is safe without it.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

/// Holds logind's inhibitor until dropped.
#[derive(Debug)]
pub struct Inhibitor {
    holder: Option<Child>,
}

impl Inhibitor {
    /// Takes the inhibitor. Where there is no logind there is nothing that would wait: not an error.
    pub fn take(why: &str) -> Self {
        // systemd-inhibit holds the lock as long as its command runs, and `cat` runs until its standard input closes.
        // Once `cat` has given the byte back the lock is held; when systemd-inhibit fails there is only its end.
        let holder = Command::new("systemd-inhibit")
            .args(["--what=shutdown:sleep", "--mode=block", "--who=ralph-update"])
            .arg(format!("--why={why}"))
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = holder else { return Inhibitor { holder: None } };
        if let (Some(stdin), Some(stdout)) = (&mut child.stdin, &mut child.stdout) {
            let _ = stdin.write_all(b"\n");
            let _ = stdout.read(&mut [0]);
        }
        Inhibitor { holder: Some(child) }
    }
}

impl Drop for Inhibitor {
    fn drop(&mut self) {
        if let Some(mut child) = self.holder.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
