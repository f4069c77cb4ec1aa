//! What `run` and `check` print (HLT-52).

use super::*;
use crate::act::Settled;
use crate::check::Reason;
use crate::config::Level;
use crate::fakes::{entry, trial};

fn ran(verdict: Verdict, booted: Booted) -> Ran {
    let failed = Outcome {
        name: "sandbox".into(),
        level: Level::Wanted,
        passed: false,
        milliseconds: 12,
        tries: 1,
        reason: Some(Reason::ExitCode),
        detail: "exited with code 3".into(),
        output: "no \u{1b}[31mcgroup\nsecond\n".into(),
        recorded: None,
        seen: None,
    };
    let passed = Outcome {
        name: "ralphd".into(),
        level: Level::Required,
        passed: true,
        reason: None,
        detail: "ralphd.service is active".into(),
        output: "chatter\n".into(),
        ..failed.clone()
    };
    Ran {
        settled: Settled { verdict, booted, done: true },
        outcomes: vec![passed, failed],
        notes: vec!["evidence is in /x\nverdict: forged".into()],
    }
}

#[test]
fn one_line_a_check_and_one_with_the_verdict() {
    let ran = ran(Verdict::RecordAndReboot, trial());
    let expected = "\
pass ralphd (required, 12 ms): ralphd.service is active
FAIL sandbox (wanted, 12 ms): exit-code: exited with code 3
     | no \\u{1b}[31mcgroup
     | second
note: evidence is in /x\\nverdict: forged
verdict: reboot: the trial failed and something better will boot (generation 7 in slot b, attempt 1)
";
    assert_eq!(Report::of_run(&ran, false).text(), expected);
    let check = Report::of_check(&ran.outcomes, true).text();
    assert_eq!(check, expected.lines().take(4).map(|line| format!("{line}\n")).collect::<String>());
}

#[test]
fn the_document_of_run() {
    let ran = ran(Verdict::Commit, trial());
    let document: serde_json::Value = serde_json::from_str(&Report::of_run(&ran, true).json()).unwrap();
    assert_eq!(document["format"], 1);
    assert_eq!(document["verdict"], "commit");
    assert_eq!(document["healthy"], true);
    let booted = serde_json::json!({
        "state": "trial", "slot": "b", "generation": 7, "system": "5e".repeat(32), "attempt": 1
    });
    assert_eq!(document["booted"], booted);
    assert_eq!(document["checks"][0]["verdict"], "passed");
    assert_eq!(document["checks"][0]["reason"], serde_json::Value::Null);
    assert_eq!(document["checks"][1]["reason"], "exit-code");
    assert_eq!(document["notes"].as_array().unwrap().len(), 1);
}

#[test]
fn every_verdict_has_its_sentence() {
    let last = |verdict, booted, healthy| {
        let ran = ran(verdict, booted);
        Report::of_run(&ran, healthy).text().lines().last().unwrap().to_owned()
    };
    let committed = || Booted::Committed(entry());
    let sentences = [
        last(Verdict::Commit, trial(), true),
        last(Verdict::Commit, trial(), false),
        last(Verdict::RecordAndReboot, trial(), false),
        last(Verdict::RecordAndStay, trial(), false),
        last(Verdict::Healthy, committed(), true),
        last(Verdict::Healthy, committed(), false),
        last(Verdict::Report, committed(), false),
        last(Verdict::Unknown, Booted::Unknown("no entry matches".into()), false),
    ];
    for (n, sentence) in sentences.iter().enumerate() {
        assert!(sentence.starts_with("verdict: "), "{sentence}");
        assert!(sentences[n + 1..].iter().all(|other| other != sentence), "{sentence}");
    }
    assert!(sentences[7].contains("no entry matches"));
    assert!(sentences[4].contains("generation 7 in slot b"));
}
