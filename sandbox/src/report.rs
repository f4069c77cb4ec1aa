//! The probe's report, and what makes one worth anything (SBX-13).

use serde::{Deserialize, Serialize};

use crate::Wall;

/// A report larger than this proves nothing (SBX-13).
pub const MAX_REPORT: usize = 64 << 10;

/// What was found out about one wall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// Which wall.
    pub name: Wall,
    /// Whether it stands.
    pub held: bool,
    /// What was found and, if it does not stand, what was expected (SBX-14).
    pub detail: String,
}

/// The document that the probe prints (SBX-13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// 1.
    pub format: u32,
    /// One for each wall that was tried.
    pub assertions: Vec<Assertion>,
}

/// Why a report proves nothing (SBX-13).
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Nobody reads so much.
    #[error("the probe's report has {0} bytes; more than {MAX_REPORT} prove nothing")]
    TooLarge(usize),
    /// No JSON, or not of this shape; a wall that this program does not know is one of the reasons.
    #[error("the probe's report is not what a probe of this version prints")]
    Json(#[source] serde_json::Error),
    /// A format of another time.
    #[error("the probe's report has format {0}, expected 1")]
    Format(u32),
    /// A wall that was not tried.
    #[error("the probe's report says nothing about {0}")]
    Missing(Wall),
    /// A wall with two answers.
    #[error("the probe's report speaks of {0} twice")]
    Twice(Wall),
    /// A wall that was not asked about.
    #[error("the probe's report speaks of {0}, which was not asked")]
    NotAsked(Wall),
}

impl Report {
    /// Reads what a probe printed and accepts it only if it has exactly one assertion for each wall in `expected`
    /// ([`Question::expected`](crate::Question::expected)). An accepted report may still say that walls are missing.
    ///
    /// # Errors
    /// When it proves nothing (SBX-13).
    pub fn parse(output: &[u8], expected: &[Wall]) -> Result<Self, ReportError> {
        if output.len() > MAX_REPORT {
            return Err(ReportError::TooLarge(output.len()));
        }
        let report: Self = serde_json::from_slice(output).map_err(ReportError::Json)?;
        if report.format != 1 {
            return Err(ReportError::Format(report.format));
        }
        let mut missing = expected.to_vec();
        for assertion in &report.assertions {
            let name = assertion.name;
            if !expected.contains(&name) {
                return Err(ReportError::NotAsked(name));
            }
            let at = missing.iter().position(|wall| *wall == name).ok_or(ReportError::Twice(name))?;
            missing.remove(at);
        }
        missing.first().map_or(Ok(report), |wall| Err(ReportError::Missing(*wall)))
    }

    /// The walls that do not stand. None: the sandbox is what SBX-1 to SBX-7 say.
    pub fn failed(&self) -> impl Iterator<Item = &Assertion> {
        self.assertions.iter().filter(|assertion| !assertion.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(walls: &[Wall]) -> Report {
        let assertions =
            walls.iter().map(|name| Assertion { name: *name, held: *name != Wall::Seccomp, detail: String::new() });
        Report { format: 1, assertions: assertions.collect() }
    }

    fn parse(report: &Report) -> Result<Report, ReportError> {
        Report::parse(&serde_json::to_vec(report).unwrap(), &Wall::expected(false))
    }

    /// SBX-13: the shape, and a whole one is accepted whatever it says.
    #[test]
    fn a_whole_report_is_accepted() {
        let whole = report(&Wall::expected(false));
        assert_eq!(parse(&whole).unwrap(), whole);
        assert_eq!(whole.failed().map(|a| a.name).collect::<Vec<_>>(), [Wall::Seccomp]);
        let text = r#"{"format":1,"assertions":[{"name":"overlay","held":true,"detail":"x"}]}"#;
        assert_eq!(serde_json::to_string(&Report::parse(text.as_bytes(), &[Wall::Overlay]).unwrap()).unwrap(), text);
    }

    /// SBX-13: missing, twice, too large.
    #[test]
    fn what_proves_nothing_is_refused() {
        let expected = Wall::expected(false);
        assert!(matches!(parse(&report(&expected[1..])), Err(ReportError::Missing(Wall::UserNamespace))));
        assert!(matches!(parse(&report(&[])), Err(ReportError::Missing(_))));
        let twice = [expected.as_slice(), &[Wall::Mounts]].concat();
        assert!(matches!(parse(&report(&twice)), Err(ReportError::Twice(Wall::Mounts))));
        let more = [expected.as_slice(), &[Wall::Kvm]].concat();
        assert!(matches!(parse(&report(&more)), Err(ReportError::NotAsked(Wall::Kvm))));
        let other = Report { format: 2, ..report(&expected) };
        assert!(matches!(parse(&other), Err(ReportError::Format(2))));

        let mut large = serde_json::to_vec(&report(&expected)).unwrap();
        large.resize(MAX_REPORT, b' ');
        assert!(Report::parse(&large, &expected).is_ok());
        large.push(b' ');
        assert!(matches!(Report::parse(&large, &expected), Err(ReportError::TooLarge(_))));
        for text in [
            "",
            "null",
            "{}",
            r#"{"format":1}"#,
            r#"{"format":1,"assertions":[{"name":"walls","held":true,"detail":""}]}"#,
            r#"{"format":1,"assertions":[{"name":"overlay","held":1,"detail":""}]}"#,
            r#"{"format":1,"assertions":[]}{}"#,
        ] {
            assert!(matches!(Report::parse(text.as_bytes(), &[]), Err(ReportError::Json(_))), "{text}");
        }
    }

    proptest! {
        /// SBX-13: nothing but the whole set, each once, is accepted.
        #[test]
        fn only_permutations_are_accepted(picks in prop::collection::vec(0usize..22, 18..26)) {
            let all = Wall::expected(false);
            let walls: Vec<Wall> = picks.iter().map(|i| all[*i]).collect();
            let mut sorted = walls.clone();
            sorted.sort();
            prop_assert_eq!(parse(&report(&walls)).is_ok(), sorted == all);
        }

        #[test]
        fn no_bytes_upset_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Report::parse(&bytes, &Wall::expected(true)).is_err());
        }
    }
}
