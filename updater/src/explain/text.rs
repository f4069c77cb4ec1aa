//! An [`Explanation`] in plain words, for someone woken at three in the morning.

use std::fmt::Write as _;

use super::update::guard_words;
use super::{End, Explanation, FailedCheck, Try, Update};

/// 2020-01-01: a clock that shows less was wrong.
const CLOCK_IS_WRONG_BEFORE: u64 = 1_577_836_800;

/// Seconds since 1970 as a date in UTC; `?` where the clock was clearly wrong.
pub fn when(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().filter(|_| seconds >= CLOCK_IS_WRONG_BEFORE);
    let time = time.and_then(|s| jiff::Timestamp::from_second(s).ok());
    time.map_or_else(|| "?".to_owned(), |time| time.to_string())
}

/// The whole, in lines.
pub fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    match &explanation.running {
        Some(running) => {
            let _ = writeln!(
                out,
                "Running now: version {} in slot {} (generation {}).\n  Why: {}.",
                running.version, running.slot, running.generation, running.why
            );
        }
        None => out.push_str("Running now: nothing, this is a disk image.\n"),
    }
    let _ = writeln!(out, "Next boot: {}.", explanation.next_boot_why);
    for problem in &explanation.problems {
        let _ = writeln!(out, "Problem: {problem}");
    }
    for unread in &explanation.unread {
        let _ = writeln!(out, "Could not be read: {unread}");
    }
    out.push_str("\nWhat to do:\n");
    for (number, advice) in explanation.advice.iter().enumerate() {
        let _ = writeln!(out, "  {}. {}", number + 1, advice.text);
        if let Some(command) = &advice.command {
            let _ = writeln!(out, "       {command}");
        }
    }
    out.push_str("\nWhat happened, newest first:\n");
    for update in &explanation.updates {
        tell(&mut out, update, explanation.remembered);
    }
    out
}

fn tell(out: &mut String, update: &Update, remembered: bool) {
    let version = update.version.as_deref().unwrap_or("unknown");
    let _ = writeln!(out, "\n  Version {version}, slot {}, generation {}", update.slot, update.generation);
    match update.applied {
        Some(time) => {
            let _ = writeln!(out, "    applied {}", when(time));
        }
        None if update.generation == 1 => out.push_str("    came with the disk\n"),
        None => out.push_str("    nothing tells when it was installed\n"),
    }
    for one in &update.tries {
        tell_try(out, one, remembered);
    }
    let at = update.ended.map(|time| format!(" ({})", when(time))).unwrap_or_default();
    let replaced = if update.replaced && update.end != End::Replaced { "; a later update took its slot" } else { "" };
    let _ = writeln!(out, "    {}{at}{replaced}", end_words(update));
    for detail in &update.end_details {
        indented(out, "      ", detail);
    }
}

fn end_words(update: &Update) -> String {
    match update.end {
        End::Staged => "staged: the next boot tries it for the first time".to_owned(),
        End::OnTrial => "still on trial".to_owned(),
        End::Committed => "committed".to_owned(),
        End::FellBack => "fell back: its tries are used up, for the reasons above".to_owned(),
        End::Inconclusive => format!(
            "fell back, inconclusive: its tries are used up and nothing tells why ({} such ends of this system so far)",
            update.inconclusive
        ),
        End::RolledBack => "rolled back by an operator".to_owned(),
        End::Rejected => "rejected by an operator".to_owned(),
        End::MarkedBad => "marked bad".to_owned(),
        End::Replaced => "replaced by a later update before it ended".to_owned(),
        End::Unknown => "how it ended is not known".to_owned(),
    }
}

fn tell_try(out: &mut String, one: &Try, remembered: bool) {
    let _ = write!(out, "    boot {}", one.attempt);
    if let Some(time) = one.time {
        let _ = write!(out, ", {}", when(time));
    }
    out.push_str(": ");
    let after = one.uptime_ms.map(|ms| format!(", {} after the kernel's start", seconds(ms))).unwrap_or_default();
    match (&one.verdict, &one.guard, one.now) {
        (Some(verdict), ..) => {
            let _ = writeln!(out, "{}{after}", verdict_words(verdict));
        }
        (None, _, true) => out.push_str("runs now; no verdict yet\n"),
        (None, Some(guard), _) if guard.starts_with("check: ") => out.push_str("failed; its record is not here\n"),
        (None, Some(_), _) => out.push_str("it never came to a verdict\n"),
        (None, None, _) if one.history.is_some() => out.push_str("failed; its record is gone, the history says:\n"),
        (None, None, _) if !remembered => out.push_str("what it came to cannot be read\n"),
        (None, None, _) => {
            out.push_str("no evidence: a power cut, or it hung before anything could be written\n");
        }
    }
    if one.attempt == 0 {
        out.push_str("      the boot loader did not count this boot\n");
    }
    if let Some(guard) = &one.guard {
        indented(out, "      ", &guard_words(guard));
    }
    if let Some(said) = &one.history {
        indented(out, "      ", said);
    }
    for check in &one.failed_checks {
        tell_check(out, check);
    }
    for note in &one.notes {
        indented(out, "      note: ", note);
    }
    if let Some(words) = &one.last_words {
        indented(out, "      its last words, from the ", words);
    }
}

fn tell_check(out: &mut String, check: &FailedCheck) {
    let level = if check.required { "required" } else { "wanted" };
    let tries = if check.tries > 1 { format!(", {} tries", check.tries) } else { String::new() };
    let line = format!(
        "{level} check {} failed after {}{tries}: {} ({})",
        check.name,
        seconds(check.milliseconds),
        check.detail,
        check.reason
    );
    indented(out, "      ", &line);
    for line in check.output.lines() {
        indented(out, "        | ", line);
    }
}

fn verdict_words(verdict: &str) -> String {
    match verdict {
        "commit" => "passed, and was committed".to_owned(),
        "record-and-reboot" => "failed, and rebooted".to_owned(),
        "mark-bad-and-reboot" => "failed, was marked bad, and rebooted".to_owned(),
        "record-and-stay" => {
            "failed, and stayed up: nothing better would have booted, or its policy says so".to_owned()
        }
        "report" => "reported only: this boot proved nothing, or nothing was to be decided".to_owned(),
        other => other.to_owned(),
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

/// Evidence is what a failing system wrote: nothing of it may move the cursor of whoever reads.
fn indented(out: &mut String, first: &str, text: &str) {
    let clean =
        |line: &str| line.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect::<String>();
    let rest = " ".repeat(first.len());
    for (number, line) in text.lines().enumerate() {
        let lead = if number == 0 { first } else { &rest };
        let _ = writeln!(out, "{lead}{}", clean(line).trim_end());
    }
}
