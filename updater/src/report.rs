//! Results and errors as a person or a program reads them (IFC-1, IFC-2).

use std::io::Write;

use disk_layout::LockError;
use serde_json::{Map, Value, json};
use updater::apply::ApplyError;
use updater::exit::Exit;
use updater::refuse::Refusal;
use updater::session::SessionError;

/// What a command has to say when it did not fail.
#[derive(Debug)]
pub struct Answer {
    /// Done, or nothing to do.
    pub exit: Exit,
    /// For a person.
    pub text: String,
    /// For a program: fields of the object.
    pub fields: Map<String, Value>,
}

impl Answer {
    /// Done.
    pub fn done(text: impl Into<String>, fields: Value) -> Self {
        Answer { exit: Exit::Success, text: text.into(), fields: object(fields) }
    }

    /// Nothing to do.
    pub fn nothing(text: impl Into<String>) -> Self {
        Answer { exit: Exit::NothingToDo, text: text.into(), fields: Map::new() }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

/// Tells the outcome, and returns the exit code.
pub fn tell(json: bool, outcome: anyhow::Result<Answer>) -> Exit {
    let (exit, text, mut fields) = match outcome {
        Ok(answer) => (answer.exit, answer.text, answer.fields),
        Err(error) => {
            let (exit, reason) = classify(&error);
            let message = format!("{error:#}");
            let fields = object(json!({ "reason": reason, "message": message }));
            // With --json, too: whoever reads the journal has no standard output.
            let _ = writeln!(std::io::stderr(), "ralph-update: {message}");
            (exit, String::new(), fields)
        }
    };
    let mut out = std::io::stdout().lock();
    // A reader that closed the pipe early takes nothing back of what was done.
    let _ = if json {
        fields.insert("format".to_owned(), json!(1));
        fields.insert("result".to_owned(), json!(result_name(exit)));
        fields.insert("exit".to_owned(), json!(exit as u8));
        writeln!(out, "{}", Value::Object(fields))
    } else if text.is_empty() {
        Ok(())
    } else {
        writeln!(out, "{}", text.trim_end())
    };
    exit
}

fn result_name(exit: Exit) -> &'static str {
    match exit {
        Exit::Success => "ok",
        Exit::Failure | Exit::Usage => "failed",
        Exit::Refused => "refused",
        Exit::NothingToDo => "nothing-to-do",
        Exit::Busy => "busy",
    }
}

/// The stable reason of an error, and how the process ends.
fn classify(error: &anyhow::Error) -> (Exit, &'static str) {
    for cause in error.chain() {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return (Exit::Refused, refusal.reason());
        }
        if let Some(LockError::Busy { .. }) = cause.downcast_ref() {
            return (Exit::Busy, "busy");
        }
        match cause.downcast_ref() {
            Some(ApplyError::Untrusted(_)) => return (Exit::Refused, "untrusted"),
            Some(ApplyError::Head(_)) => return (Exit::Refused, "not-an-image"),
            Some(ApplyError::Fenced { .. }) => return (Exit::Failure, "fenced"),
            _ => {}
        }
        if let Some(SessionError::NoFallback { .. }) = cause.downcast_ref() {
            return (Exit::Refused, "no-fallback");
        }
    }
    (Exit::Failure, "failed")
}
