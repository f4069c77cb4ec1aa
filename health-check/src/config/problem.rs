//! What can be wrong in one file.

use super::raw::{DEADLINES, LONGEST_SOAK, OVERALLS};
use crate::span::{Span, SpanError};

/// What is wrong in a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Not TOML, a key we do not know, or a value of the wrong type.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// A name of a check.
    #[error("the name of the check `{0}` is not [a-z0-9-], 1 to 64 characters")]
    Name(String),
    /// A name that we use in reports ourselves.
    #[error("the name `{0}` is taken by a check of our own: choose another")]
    OurName(String),
    /// Something in a check.
    #[error("check `{check}`")]
    Check {
        /// Its name.
        check: String,
        /// What is wrong.
        source: CheckProblem,
    },
    /// The overall deadline is not a length of time.
    #[error("policy: overall-deadline")]
    OverallSpan(#[source] SpanError),
    /// The overall deadline is out of bounds.
    #[error("policy: overall-deadline {overall} is not between {} and {}", OVERALLS.0, OVERALLS.1)]
    Overall {
        /// What stands there.
        overall: Span,
    },
    /// The soak is not a length of time.
    #[error("policy: soak")]
    SoakSpan(#[source] SpanError),
    /// The soak is out of bounds.
    #[error("policy: soak {soak} is longer than {LONGEST_SOAK}")]
    Soak {
        /// What stands there.
        soak: Span,
    },
}

/// What is wrong in a check.
#[derive(Debug, thiserror::Error)]
pub enum CheckProblem {
    /// A length of time.
    #[error("{key}")]
    Span {
        /// The key that holds it.
        key: &'static str,
        /// What is wrong with it.
        source: SpanError,
    },
    /// A deadline nobody means.
    #[error("deadline {deadline} is not between {} and {}", DEADLINES.0, DEADLINES.1)]
    Deadline {
        /// What stands there.
        deadline: Span,
    },
    /// The unit could never pass.
    #[error("stable-for {stable_for} is not less than the deadline {deadline}, so it could never pass")]
    StableFor {
        /// What stands there.
        stable_for: Span,
        /// The deadline it meets.
        deadline: Span,
    },
    /// A key that belongs to another kind.
    #[error("`{key}` does not belong to kind = \"{kind}\"")]
    Foreign {
        /// The key.
        key: &'static str,
        /// The kind it has.
        kind: &'static str,
    },
    /// A key that the kind needs.
    #[error("kind = \"{kind}\" needs `{key}`")]
    Missing {
        /// The key.
        key: &'static str,
        /// The kind it has.
        kind: &'static str,
    },
    /// Not the name of a unit.
    #[error("{0:?} is not the full name of one systemd unit, like \"ralphd.service\"")]
    Unit(String),
    /// A value that its key does not take.
    #[error("{key}: {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
}
