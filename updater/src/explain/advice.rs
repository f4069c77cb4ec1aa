//! What to do: concrete commands, the most urgent first.

use disk_layout::Slot;

use super::update::name;
use super::{Advice, End, Facts, Update};
use crate::memory::INCONCLUSIVE_MAX;
use crate::status::SlotState;

/// A file of ours, for commands.
const EVIDENCE: &str = "/var/lib/ralph-update/evidence";

pub(super) fn advice(facts: &Facts, updates: &[Update]) -> Vec<Advice> {
    let mut list = Vec::new();
    let (a, b) = (facts.status.slots.a.state, facts.status.slots.b.state);
    // A bad entry that was booted because there is nothing better shows as a trial.
    let hopeless = |slot, state| {
        matches!(state, SlotState::Bad | SlotState::Fenced | SlotState::Empty)
            || facts.booted_bad && facts.status.booted == Some(slot)
    };
    let both_bad = hopeless(Slot::A, a) && hopeless(Slot::B, b);
    if both_bad {
        list.push(say(
            facts,
            "no slot holds a system that was proven. The machine keeps booting what it has, and an update is accepted all the same: apply an image that is known to work",
            Some("apply IMAGE"),
        ));
        list.push(other("then reboot into it", "systemctl reboot"));
    }
    if let Some(newest) = updates.first() {
        about(facts, newest, both_bad, &mut list);
    }
    for (slot, state) in [("a", a), ("b", b)] {
        if state == SlotState::Fenced {
            list.push(say(
                facts,
                &format!("slot {slot} is half written and cannot boot: an apply was cut or failed; apply again"),
                Some("apply IMAGE"),
            ));
        }
    }
    if !facts.remembered && facts.booted.is_some() {
        list.push(other(
            "what happened before is kept in /var, which cannot be read: look why it is not mounted",
            "findmnt /var; systemctl status var.mount",
        ));
    }
    if facts.booted.is_none() {
        // Commands about the machine mean nothing on a disk image; what is to be done there stays.
        for advice in &mut list {
            advice.command = advice.command.take().filter(|command| command.starts_with(&facts.command));
        }
    }
    if list.is_empty() {
        list.push(Advice { text: "nothing: all is as it should be".to_owned(), command: None });
    }
    list
}

fn about(facts: &Facts, newest: &Update, both_bad: bool, list: &mut Vec<Advice>) {
    let name = name(newest);
    let retry = "if the cause lay outside of the image (network, disk, configuration, power) and is gone, apply the same image once more";
    match newest.end {
        End::Staged => {
            list.push(other(&format!("{name} waits for its first boot: reboot when it suits you"), "systemctl reboot"));
        }
        End::OnTrial if newest.tries.iter().any(|t| t.now) => {
            list.push(other(
                "the trial is running: let the health check come to its verdict, and see what it says",
                "journalctl -b -u ralph-health-check",
            ));
            list.push(say(facts, "or give it up now, and go back", Some("rollback --reboot")));
        }
        End::OnTrial => {
            list.push(other(&format!("{name} has tries left: the next boot tries it again"), "systemctl reboot"));
            list.push(say(facts, "or give it up", Some(&format!("reject {}", newest.slot))));
        }
        End::MarkedBad if by_guard(newest) => {
            look_closer(newest, list);
            list.push(say(
                facts,
                "the boot guard gave the slot up, which is not held against the image: apply the same version again, which writes the slot anew; if it happens again, suspect the disk",
                Some("apply IMAGE"),
            ));
        }
        End::FellBack | End::MarkedBad => {
            look_closer(newest, list);
            if !both_bad {
                list.push(say(
                    facts,
                    "mend what failed, build a newer version and apply it; this very system is refused from now on",
                    Some("apply NEW-IMAGE"),
                ));
            }
            list.push(say(facts, retry, Some("apply --retry-failed IMAGE")));
        }
        End::Inconclusive if newest.inconclusive >= INCONCLUSIVE_MAX => {
            look_closer(newest, list);
            list.push(say(
                facts,
                &format!(
                    "{name} fell back {} times and never left a trace: it hangs before anything can be written, or the power fails. Look at the machine while it boots (console, power supply, watchdog); then apply it once more, or a newer version",
                    newest.inconclusive
                ),
                Some("apply --retry-failed IMAGE"),
            ));
        }
        End::Inconclusive => {
            look_closer(newest, list);
            list.push(say(
                facts,
                &format!(
                    "{name} fell back and nothing tells why: the power was cut, or it hung where nothing could be written. It is not held against it: apply the same image again ({} of {INCONCLUSIVE_MAX} such ends so far)",
                    newest.inconclusive
                ),
                Some("apply IMAGE"),
            ));
        }
        End::RolledBack | End::Rejected => {
            list.push(say(facts, "apply a newer version when there is one", Some("apply NEW-IMAGE")));
            list.push(say(
                facts,
                "or the same one again, if giving it up was a mistake",
                Some("apply --retry-failed IMAGE"),
            ));
        }
        End::Committed if newest.end_details.iter().any(|detail| detail.contains("ended before")) => {
            look_closer(newest, list);
        }
        End::Committed | End::Replaced | End::Unknown => {}
    }
}

/// Was it the boot guard alone that gave it up (UPD-42)?
fn by_guard(update: &Update) -> bool {
    let said = |words: &[&str]| update.end_details.iter().any(|d| words.iter().any(|words| d.starts_with(words)));
    said(&["the boot guard marked it bad", "a boot of it ended before"]) && !said(&["the health check marked it bad"])
}

/// Where there is more to read.
fn look_closer(update: &Update, list: &mut Vec<Advice>) {
    let Some(last) = update.tries.iter().rfind(|t| t.verdict.is_some()) else { return };
    list.push(other(
        "everything that was kept of the last boot of it that left a record, with the kernel's log",
        &format!("cat {EVIDENCE}/{}", file(update, last.attempt)),
    ));
    if let Some(boot) = &last.boot_id {
        list.push(other("and its journal, if that is kept", &format!("journalctl -b {}", boot.replace('-', ""))));
    }
}

fn file(update: &Update, attempt: u32) -> crate::evidence::FileName {
    crate::evidence::FileName { generation: update.generation, attempt }
}

fn say(facts: &Facts, text: &str, command: Option<&str>) -> Advice {
    Advice { text: text.to_owned(), command: command.map(|command| format!("{} {command}", facts.command)) }
}

fn other(text: &str, command: &str) -> Advice {
    Advice { text: text.to_owned(), command: Some(command.to_owned()) }
}
