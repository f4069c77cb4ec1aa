//! What a guest printed on its console, line by line with the time, cut into boots.

use std::fmt::Write as _;
use std::time::Duration;

/// One line of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Since the machine was switched on.
    pub at: Duration,
    /// Without control sequences and line end.
    pub text: String,
}

/// All that was printed since the machine was switched on.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    lines: Vec<Line>,
    partial: Vec<u8>,
}

/// The firmware prints this when it starts a boot option: the first line of a boot.
const BOOT: &str = "BdsDxe: starting Boot";

impl Transcript {
    /// Takes bytes as they came.
    pub fn push(&mut self, at: Duration, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                self.end_line(at, &line);
            } else {
                self.partial.push(byte);
            }
        }
    }

    fn end_line(&mut self, at: Duration, raw: &[u8]) {
        let text = plain(&String::from_utf8_lossy(raw));
        if !text.trim().is_empty() {
            self.lines.push(Line { at, text });
        }
    }

    /// All lines so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The lines of each boot, in order. What came before the first one belongs to it.
    pub fn boots(&self) -> Vec<&[Line]> {
        let mut starts: Vec<usize> = (0..self.lines.len()).filter(|&i| self.lines[i].text.contains(BOOT)).collect();
        if let Some(first) = starts.first_mut() {
            *first = 0;
        }
        let ends = starts.iter().skip(1).copied().chain([self.lines.len()]);
        starts.iter().zip(ends).map(|(&start, end)| &self.lines[start..end]).collect()
    }

    /// All of it, for a person who wants to know what went wrong.
    pub fn all(&self) -> String {
        self.text(&self.lines)
    }

    /// The last boot of it.
    pub fn last_boot(&self) -> String {
        self.text(self.boots().last().copied().unwrap_or(&self.lines))
    }

    fn text(&self, lines: &[Line]) -> String {
        let mut text = String::new();
        for line in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:7.1}s  {}", line.at.as_secs_f64(), line.text);
        }
        if !self.partial.is_empty() {
            let _ = writeln!(text, "          {}", plain(&String::from_utf8_lossy(&self.partial)));
        }
        text
    }
}

/// The text without terminal control sequences, which firmware and systemd send freely.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.next() {
                // CSI and OSC sequences run to a letter and to BEL or backslash; others are one letter long.
                Some('[') => {
                    chars.by_ref().find(|c| ('@'..='~').contains(c));
                }
                Some(']') => {
                    chars.by_ref().find(|c| matches!(c, '\x07' | '\\'));
                }
                _ => {}
            },
            c if c.is_control() && c != '\t' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_begins_where_the_firmware_starts_an_option() {
        let mut transcript = Transcript::default();
        let text =
            "UEFI\nBdsDxe: starting Boot0001\r\n\x1b[2J\x1b[0;32mone\x1b[0m\n\nBdsDxe: starting Boot0001\ntwo\nthr";
        transcript.push(Duration::from_millis(1500), text.as_bytes());
        let boots = transcript.boots();
        let texts: Vec<Vec<&str>> =
            boots.iter().map(|boot| boot.iter().map(|line| line.text.as_str()).collect()).collect();
        assert_eq!(
            texts,
            [vec!["UEFI", "BdsDxe: starting Boot0001", "one"], vec!["BdsDxe: starting Boot0001", "two"],]
        );
        assert!(transcript.last_boot().ends_with("    1.5s  two\n          thr\n"));
    }
}
