//! What harness and guest agent say to each other over the second serial port: lines, each whole in itself, so that a
//! guest that is reset in the middle of one costs that line and nothing else.
//!
//! Host to guest: `run ID SCRIPT`. Guest to host: `hello BOOT-ID SLOT` when the agent starts, and for a script
//! `out ID TEXT` and `err ID TEXT` (any number) and then `exit ID CODE`. SCRIPT and TEXT are escaped as Rust does with
//! bytes (`\n`, `\x1b`, …).

use anyhow::{Context, Result, bail};

/// The name of the port, as QEMU and the guest's sysfs have it.
pub const PORT: &str = "ralph.agent";

/// A boot that has got as far as the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's id of it.
    pub id: String,
    /// The slot on its command line, `a` or `b`.
    pub slot: String,
}

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromGuest {
    /// The agent started.
    Hello(Boot),
    /// A piece of a script's standard output.
    Out(u64, Vec<u8>),
    /// A piece of a script's standard error.
    Err(u64, Vec<u8>),
    /// A script ended with this code (128 + N after signal N).
    Exit(u64, i32),
}

impl FromGuest {
    /// Parses one line without its end.
    ///
    /// # Errors
    /// When it is not whole.
    pub fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        Ok(match words[..] {
            ["hello", id, slot] => Self::Hello(Boot { id: id.to_owned(), slot: slot.to_owned() }),
            ["out", id, text] => Self::Out(id.parse()?, unescape(text)?),
            ["err", id, text] => Self::Err(id.parse()?, unescape(text)?),
            ["exit", id, code] => Self::Exit(id.parse()?, code.parse()?),
            _ => bail!("not a line of the agent: {line:?}"),
        })
    }

    /// The line for it, without its end.
    pub fn line(&self) -> String {
        match self {
            Self::Hello(Boot { id, slot }) => format!("hello {id} {slot}"),
            Self::Out(id, text) => format!("out {id} {}", text.escape_ascii()),
            Self::Err(id, text) => format!("err {id} {}", text.escape_ascii()),
            Self::Exit(id, code) => format!("exit {id} {code}"),
        }
    }
}

/// The line that asks for `script`, without its end.
pub fn run_line(id: u64, script: &str) -> String {
    format!("run {id} {}", script.as_bytes().escape_ascii())
}

/// Parses the harness's line: id and script.
///
/// # Errors
/// When it is not whole.
pub fn parse_run(line: &str) -> Result<(u64, Vec<u8>)> {
    let rest = line.strip_prefix("run ").context("not a run line")?;
    let (id, script) = rest.split_once(' ').context("no script")?;
    Ok((id.parse()?, unescape(script)?))
}

fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().context("a lone backslash")? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits = [rest.next(), rest.next()].map(|d| d.unwrap_or(b'?'));
                u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?
            }
            plain @ (b'\\' | b'\'' | b'"') => plain,
            other => bail!("unknown escape \\{}", other as char),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_way_there_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        let sent = FromGuest::Out(7, all);
        let line = sent.line();
        assert!(line.is_ascii() && !line.contains('\n'));
        assert_eq!(FromGuest::parse(&line).expect("whole"), sent);
        let run = run_line(3, "echo 'a\"\n' \\ $x");
        assert_eq!(parse_run(&run).expect("whole"), (3, b"echo 'a\"\n' \\ $x".to_vec()));
    }

    #[test]
    fn a_line_that_was_cut_is_refused() {
        for line in ["", "hello x", "out 7", "out 7 \\x1", "exit 7", "exit 7 x", "out 7 \\"] {
            assert!(FromGuest::parse(line).is_err(), "{line:?}");
        }
    }
}
