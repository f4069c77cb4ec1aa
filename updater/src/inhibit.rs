//! A shutdown inhibitor over staging and commit: an orderly shutdown waits for the few writes that change which
//! system boots. A power cut does not ask, which is why the order of those writes is safe without it.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// A login manager or bus that does not answer in this time has no say: a hung one must not keep a trial from its commit.
const PATIENCE: Duration = Duration::from_secs(5);

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
        let (held, answer) = channel();
        if let (Some(stdin), Some(mut stdout)) = (&mut child.stdin, child.stdout.take()) {
            let _ = stdin.write_all(b"\n");
            std::thread::spawn(move || {
                let _ = stdout.read(&mut [0]);
                let _ = held.send(());
            });
        }
        if answer.recv_timeout(PATIENCE).is_err() {
            let _ = child.kill();
        }
        Inhibitor { holder: Some(child) }
    }
}

impl Drop for Inhibitor {
    fn drop(&mut self) {
        let Some(mut child) = self.holder.take() else { return };
        // `cat` ends when its input does. Whoever does not end by that is ended: nothing depends on how.
        drop(child.stdin.take());
        for _ in 0..100 {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => return,
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
