//! What a file of evidence says, and how large it may be (HLT-40).

use updater::evidence::{CheckRecord, Evidence, FORMAT};

use super::Traces;
use crate::check::Outcome;
use crate::machine::Entry;

/// Largest file of evidence, in bytes.
pub const LARGEST: usize = 256 << 10;
/// Output of a check that is kept.
const OUTPUT: usize = 2 << 10;
/// A text this short is not cut further.
const SHORT: usize = 64;

/// What a boot of a trial came to.
#[derive(Debug)]
pub struct Came<'a> {
    /// The booted entry.
    pub entry: &'a Entry,
    /// The counter's DONE.
    pub attempt: u32,
    /// The verdict's word.
    pub verdict: String,
    /// What the checks found.
    pub outcomes: &'a [Outcome],
    /// What else was said.
    pub notes: &'a [String],
}

/// Evidence of it, within the bounds of HLT-40 but for the size as a whole.
pub fn of(came: &Came<'_>, time: u64, uptime_ms: u64, boot_id: String, traces: Traces) -> Evidence {
    Evidence {
        format: FORMAT,
        slot: came.entry.slot.parse().ok(),
        generation: came.entry.generation,
        system: came.entry.system.clone(),
        version: came.entry.version.clone(),
        attempt: came.attempt,
        time,
        boot_id,
        verdict: came.verdict.clone(),
        uptime_ms,
        checks: came.outcomes.iter().map(check).collect(),
        kernel_log: traces.kernel_log,
        previous_end: traces.previous_end,
        notes: came.notes.to_vec(),
    }
}

fn check(outcome: &Outcome) -> CheckRecord {
    CheckRecord {
        name: outcome.name.clone(),
        level: outcome.level.to_string(),
        verdict: if outcome.passed { "passed" } else { "failed" }.to_owned(),
        milliseconds: outcome.milliseconds,
        tries: outcome.tries,
        reason: outcome.reason.map(crate::word),
        detail: outcome.detail.clone(),
        output: tail(&outcome.output, OUTPUT).to_owned(),
        recorded: outcome.recorded.clone(),
    }
}

/// The file's content, of at most [`LARGEST`] bytes: outputs are cut further, the largest first, then what else is long, then checks go.
pub fn text(mut evidence: Evidence) -> Result<Vec<u8>, serde_json::Error> {
    loop {
        let mut text = serde_json::to_vec_pretty(&evidence)?;
        text.push(b'\n');
        if text.len() <= LARGEST
            || !(cut_outputs(&mut evidence) || cut_texts(&mut evidence) || drop_items(&mut evidence))
        {
            return Ok(text);
        }
    }
}

/// The largest outputs lose their first half. `false`: all are short.
fn cut_outputs(evidence: &mut Evidence) -> bool {
    let mut outputs: Vec<&mut String> = evidence.checks.iter_mut().map(|check| &mut check.output).collect();
    cut_largest(&mut outputs, |text| tail(text, text.len() / 2).to_owned())
}

/// The same for everything else that is long, which loses its second half: the beginning of a sentence says more than its end.
fn cut_texts(evidence: &mut Evidence) -> bool {
    let mut texts: Vec<&mut String> = evidence.checks.iter_mut().map(|check| &mut check.detail).collect();
    texts.extend(evidence.notes.iter_mut());
    cut_largest(&mut texts, |text| head(text, text.len() / 2).to_owned())
}

fn cut_largest(texts: &mut [&mut String], cut: impl Fn(&str) -> String) -> bool {
    let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    if longest <= SHORT {
        return false;
    }
    // All that are about as long at once: each round writes the whole file.
    for text in texts.iter_mut().filter(|text| text.len() > longest / 2) {
        **text = cut(text);
    }
    true
}

/// So many checks or notes that their names are too much. `false`: there are none left.
fn drop_items(evidence: &mut Evidence) -> bool {
    let (checks, notes) = (evidence.checks.len(), evidence.notes.len());
    match notes > checks {
        true => evidence.notes.truncate(notes / 2),
        false => evidence.checks.truncate(checks / 2),
    }
    checks + notes > 0
}

/// The last `limit` bytes or a little less, from a character's beginning.
pub fn tail(text: &str, limit: usize) -> &str {
    let from = text.len().saturating_sub(limit);
    let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[from..]
}

/// The first `limit` bytes or a little less.
pub fn head(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Reason;
    use crate::fakes::entry;

    fn evidence(outcomes: &[Outcome], notes: &[String]) -> Evidence {
        let came = Came { entry: &entry(), attempt: 1, verdict: "commit".into(), outcomes, notes };
        of(&came, 1, 2, "boot".into(), Traces::default())
    }

    fn outcome(output: String, detail: String) -> Outcome {
        Outcome { output, ..Outcome::own_failure("ralphd", Reason::Deadline, detail) }
    }

    #[test]
    fn each_output_is_cut_to_its_last_2_kib_hlt_40() {
        let found = evidence(&[outcome("ü".repeat(2000) + "end", String::new())], &[]);
        assert!(found.checks[0].output.len() <= 2048 && found.checks[0].output.ends_with("üend"));
    }

    #[test]
    fn a_file_has_at_most_256_kib_and_the_largest_outputs_go_first_hlt_40() {
        // A control character is six bytes in JSON.
        let mut outcomes = vec![outcome("\u{1}".repeat(2000), "too late".into()); 30];
        outcomes.push(outcome("short".into(), "too late".into()));
        let text = text(evidence(&outcomes, &["a note".into()])).unwrap();
        assert!(text.len() <= LARGEST && text.len() > LARGEST / 3, "{}", text.len());
        let read = updater::evidence::parse(&text).unwrap();
        assert_eq!((read.checks.len(), read.checks[0].output.len()), (31, 1000));
        assert_eq!((read.checks[30].output.as_str(), read.checks[30].detail.as_str()), ("short", "too late"));
        assert_eq!(read.notes, ["a note"]);
    }

    #[test]
    fn nothing_makes_a_larger_file_hlt_40() {
        for (outcomes, notes) in [
            (vec![outcome(String::new(), "x".repeat(1 << 20))], vec![]),
            (vec![outcome(String::new(), String::new()); 5000], vec![]),
            (vec![], vec!["n".repeat(1000); 5000]),
        ] {
            let text = text(evidence(&outcomes, &notes)).unwrap();
            assert!(text.len() <= LARGEST, "{}", text.len());
            updater::evidence::parse(&text).unwrap();
        }
    }
}
