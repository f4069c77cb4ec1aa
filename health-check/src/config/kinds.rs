//! What each kind of check needs and takes (HLT-11).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kind::{Expectation, Http, Kind, PathCheck, RunnerChoice, Sandbox, Server, Size};
use super::problem::CheckProblem;
use super::raw::{RawCheck, RawKind, span};
use super::url;
use crate::span::Span;

const DEFAULT_STABLE_FOR: Span = Span::seconds(5);

/// Kinds of units; without one of these endings systemctl would guess.
const UNIT_KINDS: [&str; 11] =
    ["service", "socket", "target", "device", "mount", "automount", "swap", "path", "timer", "slice", "scope"];

/// The longest path of a socket: what `sockaddr_un` holds, without the zero byte at its end.
const LONGEST_SOCKET: usize = 107;

/// Exit codes by which a runner speaks of itself (SBX-21): no command of a check may be expected to end so.
const RUNNERS_OWN: [i64; 2] = [124, 125];

impl RawKind {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Command => "command",
            Self::Http => "http",
            Self::Sandbox => "sandbox",
            Self::Path => "path",
        }
    }

    /// The keys it takes beside those of all checks.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Unit => &["unit", "stable-for"],
            Self::Command => &["tries", "interval", "command"],
            Self::Http => &["tries", "interval", "url", "socket", "path", "status", "json", "record"],
            Self::Sandbox => &["tries", "interval", "command", "output", "exit", "runner", "kvm"],
            Self::Path => &["tries", "interval", "path", "type", "writable", "free"],
        }
    }
}

/// A key that does not belong to the kind is an error: what it asks for would not be checked.
pub fn no_foreign_key(raw: &RawCheck) -> Result<(), CheckProblem> {
    let given = [
        ("tries", raw.tries.is_some()),
        ("interval", raw.interval.is_some()),
        ("unit", raw.unit.is_some()),
        ("stable-for", raw.stable_for.is_some()),
        ("command", raw.command.is_some()),
        ("url", raw.url.is_some()),
        ("socket", raw.socket.is_some()),
        ("path", raw.path.is_some()),
        ("status", raw.status.is_some()),
        ("json", raw.json.is_some()),
        ("record", raw.record.is_some()),
        ("output", raw.output.is_some()),
        ("exit", raw.exit.is_some()),
        ("runner", raw.runner.is_some()),
        ("kvm", raw.kvm.is_some()),
        ("type", raw.file_type.is_some()),
        ("writable", raw.writable.is_some()),
        ("free", raw.free.is_some()),
    ];
    match given.into_iter().find(|(key, is)| *is && !raw.kind.keys().contains(key)) {
        Some((key, _)) => Err(CheckProblem::Foreign { key, kind: raw.kind.name() }),
        None => Ok(()),
    }
}

/// What the check does.
pub fn kind(raw: RawCheck, deadline: Span) -> Result<Kind, CheckProblem> {
    let missing = |key| CheckProblem::Missing { key, kind: raw.kind.name() };
    match raw.kind {
        RawKind::Unit => {
            let unit = raw.unit.ok_or_else(|| missing("unit"))?;
            if !is_unit_name(&unit) {
                return Err(CheckProblem::Unit(unit));
            }
            let stable_for = span("stable-for", raw.stable_for.as_deref(), DEFAULT_STABLE_FOR)?;
            if stable_for >= deadline {
                return Err(CheckProblem::StableFor { stable_for, deadline });
            }
            Ok(Kind::Unit { unit, stable_for })
        }
        RawKind::Command => {
            let words = command(raw.command.ok_or_else(|| missing("command"))?)?;
            let mut words = words.into_iter();
            // `command` lets no empty one pass.
            let program = words.next().map(PathBuf::from).ok_or_else(|| missing("command"))?;
            Ok(Kind::Command { program, args: words.collect() })
        }
        RawKind::Http => http(raw).map(Kind::Http),
        RawKind::Sandbox => {
            let exit = raw.exit.unwrap_or(0);
            let code = i32::try_from(exit).ok().filter(|code| (0..=255).contains(code));
            let code = code.ok_or_else(|| value("exit", format!("{exit} is not between 0 and 255")))?;
            if RUNNERS_OWN.contains(&exit) {
                return Err(value("exit", format!("{exit} is how a sandbox that failed itself is told")));
            }
            Ok(Kind::Sandbox(Sandbox {
                command: command(raw.command.ok_or_else(|| missing("command"))?)?,
                output: raw.output,
                exit: code,
                runner: raw.runner.unwrap_or(RunnerChoice::Auto),
                kvm: raw.kvm.unwrap_or(false),
            }))
        }
        RawKind::Path => {
            let path = raw.path.ok_or_else(|| missing("path"))?;
            let free = raw.free.map(|text| {
                let form =
                    || format!("{text:?} is not a size: write a whole number and KiB, MiB or GiB, like \"64MiB\"");
                Size::parse(&text).ok_or_else(|| value("free", form()))
            });
            Ok(Kind::Path(PathCheck {
                path: absolute("path", path)?,
                file_type: raw.file_type,
                writable: raw.writable.unwrap_or(false),
                free: free.transpose()?,
            }))
        }
    }
}

fn http(raw: RawCheck) -> Result<Http, CheckProblem> {
    let (server, host, path) = match (raw.url, raw.socket, raw.path) {
        (Some(_), Some(_), _) => return Err(value("socket", "it stands instead of `url`, not beside it".into())),
        (Some(_), None, Some(_)) => return Err(value("path", "it belongs to `socket`: the url has its own".into())),
        (Some(text), None, None) => {
            let url = url::parse(&text).map_err(|why| value("url", why))?;
            (Server::Tcp(url.address), url.host, url.path)
        }
        (None, Some(socket), path) => {
            let path = path.ok_or_else(|| value("socket", "it needs `path`: what to ask for".into()))?;
            url::check_path(&path).map_err(|why| value("path", format!("{path:?}: {why}")))?;
            if socket.len() > LONGEST_SOCKET {
                return Err(value("socket", format!("it is longer than {LONGEST_SOCKET} bytes, which no socket's is")));
            }
            (Server::Unix(absolute("socket", socket)?), "localhost".to_owned(), path)
        }
        (None, None, _) => return Err(CheckProblem::Missing { key: "url` or `socket", kind: "http" }),
    };
    let status = raw.status.unwrap_or(200);
    let record = raw.record.map(|pointer| is_pointer(&pointer).map(|()| pointer).map_err(|why| value("record", why)));
    Ok(Http {
        server,
        host,
        path,
        status: u16::try_from(status)
            .ok()
            .filter(|status| (200..=599).contains(status))
            .ok_or_else(|| value("status", format!("{status} is not between 200 and 599")))?,
        json: expectations(raw.json.unwrap_or_default()).map_err(|why| value("json", why))?,
        record: record.transpose()?,
    })
}

fn expectations(raw: BTreeMap<String, toml::Value>) -> Result<Vec<Expectation>, String> {
    let one = |pointer: &str, value: toml::Value| match value {
        toml::Value::String(text) => Ok(Value::from(text)),
        toml::Value::Integer(number) => Ok(Value::from(number)),
        toml::Value::Boolean(is) => Ok(Value::from(is)),
        other => Err(format!(
            "{pointer:?}: a {} cannot be expected: write a string, an integer, a boolean or a list of such",
            other.type_str()
        )),
    };
    raw.into_iter()
        .map(|(pointer, value)| {
            is_pointer(&pointer)?;
            let one_of = match value {
                toml::Value::Array(values) if values.is_empty() => {
                    return Err(format!("{pointer:?}: of an empty list nothing can be there"));
                }
                toml::Value::Array(values) => {
                    values.into_iter().map(|value| one(&pointer, value)).collect::<Result<_, _>>()?
                }
                value => vec![one(&pointer, value)?],
            };
            Ok(Expectation { pointer, one_of })
        })
        .collect()
}

/// RFC 6901; the whole document, which has the empty pointer, is never a value that can be expected.
fn is_pointer(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} is not a JSON pointer: it begins with /"));
    }
    if text.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
        return Err(format!("{text:?} is not a JSON pointer: behind ~ stands 0 (for ~) or 1 (for /)"));
    }
    Ok(())
}

fn command(words: Vec<String>) -> Result<Vec<String>, CheckProblem> {
    let why = match words.first() {
        _ if words.iter().any(|word| word.contains('\0')) => "a word holds a NUL byte",
        None => "it is empty: the first word is the absolute path of a program",
        Some(program) if !program.starts_with('/') => "the program is not an absolute path",
        Some(_) => return Ok(words),
    };
    Err(value("command", why.to_owned()))
}

fn absolute(key: &'static str, path: String) -> Result<PathBuf, CheckProblem> {
    if path.contains('\0') {
        return Err(value(key, "it holds a NUL byte".to_owned()));
    }
    if !Path::new(&path).is_absolute() {
        return Err(value(key, format!("{path:?} is not an absolute path")));
    }
    Ok(PathBuf::from(path))
}

fn value(key: &'static str, why: String) -> CheckProblem {
    CheckProblem::Value { key, why }
}

/// One unit, in full: no pattern (systemctl would match several), nothing that looks like an option.
fn is_unit_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    name.len() <= 255
        && !stem.is_empty()
        && !name.starts_with(['-', '.'])
        && UNIT_KINDS.contains(&kind)
        && name.bytes().all(allowed)
}
