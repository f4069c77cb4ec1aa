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
        settled: Settled { verdict, booted, done: true, guard: crate::act::Told::Wholly },
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
        "state": "trial", "slot": "b", "generation": 7, "system": "5e".repeat(32), "version": "1.2.0",
        "attempt": 1
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
        last(Verdict::Report, trial(), false),
        last(Verdict::MarkBadAndReboot, trial(), false),
        last(Verdict::Unknown, Booted::Unknown("no entry matches".into()), false),
    ];
    for (n, sentence) in sentences.iter().enumerate() {
        assert!(sentence.starts_with("verdict: "), "{sentence}");
        assert!(sentences[n + 1..].iter().all(|other| other != sentence), "{sentence}");
    }
    assert!(sentences[9].contains("no entry matches"));
    assert!(sentences[4].contains("generation 7 in slot b"));
}

#[test]
fn tries_and_what_was_recorded_are_told_hlt_52() {
    let mut ran = ran(Verdict::Commit, trial());
    (ran.outcomes[0].tries, ran.outcomes[0].recorded) = (3, Some("sha256:00".into()));
    let report = Report::of_run(&ran, true);
    let first = report.text().lines().next().unwrap().to_owned();
    assert_eq!(first, "pass ralphd (required, 12 ms, 3 tries): ralphd.service is active, recorded sha256:00");
    let document: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!((&document["checks"][0]["tries"], &document["checks"][0]["recorded"]), (&3.into(), &"sha256:00".into()));
    assert_eq!(
        (&document["checks"][1]["tries"], &document["checks"][1]["recorded"]),
        (&1.into(), &serde_json::Value::Null)
    );
}

#[test]
fn a_warning_begins_its_line_hlt_38() {
    let mut ran = ran(Verdict::Healthy, Booted::Committed(entry()));
    ran.notes.push("WARNING: systemd-bless-boot.service is not masked".into());
    let text = Report::of_run(&ran, true).text();
    assert!(text.lines().any(|line| line.starts_with("WARNING: systemd-bless-boot")), "{text}");
    let document: serde_json::Value = serde_json::from_str(&Report::of_run(&ran, true).json()).unwrap();
    assert_eq!(document["notes"][1], "WARNING: systemd-bless-boot.service is not masked");
}

#[test]
fn a_soak_that_the_guard_would_cut_is_warned_of_hlt_36() {
    let config = |soak| Config {
        checks: Vec::new(),
        policy: crate::config::Policy { soak: crate::span::Span::seconds(soak), ..Default::default() },
    };
    assert!(!summary(&config(240)).contains(WARNING));
    assert!(summary(&config(241)).contains("WARNING: soak 241s and overall deadline 5min exceed the 540 s"));
}
