//! Results and errors as a person or a program reads them (IFC-1, IFC-2).

use std::io::Write;

use serde_json::{Map, Value, json};
use updater::exit::Exit;
use updater::reason;

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

    /// Looked, and found what a program should react to.
    pub fn endangered(text: impl Into<String>, fields: Value) -> Self {
        let mut answer = Answer { exit: Exit::Endangered, ..Answer::done(text, fields) };
        answer.fields.insert("reason".to_owned(), json!("endangered"));
        answer
    }

    /// Nothing to do.
    pub fn nothing(reason: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let fields = object(json!({ "reason": reason, "message": text }));
        Answer { exit: Exit::NothingToDo, text, fields }
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
            let (exit, reason) = reason::classify(&error);
            let message = format!("{error:#}");
            let mut fields = object(json!({ "reason": reason, "message": message }));
            if let Some(cause) = reason::cause(&error) {
                fields.insert("cause".to_owned(), json!(cause));
            }
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
        Exit::Endangered => "endangered",
    }
}
