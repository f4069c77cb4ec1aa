//! Printing. That nobody reads it must not keep a failed trial from its reboot: an error is passed over (`println!` would panic), and the
//! boot service does not wait for a reader that hangs (HLT-42).

use std::io::{Write, stderr, stdout};
use std::time::Duration;

use crate::limit;

/// How long a reader of the boot service may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How long a reader is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as it takes: somebody reads at a terminal.
    Unlimited,
    /// For a few seconds, then the text is lost: the journal may hang.
    Limited,
}

/// Prints to standard output.
pub fn out(text: &str, patience: Patience) {
    print(stdout(), text.to_owned(), patience, LIMIT);
}

/// Prints a line to standard error.
pub fn complain(text: &str, patience: Patience) {
    print(stderr(), format!("{text}\n"), patience, LIMIT);
}

fn print(mut to: impl Write + Send + 'static, text: String, patience: Patience, limit: Duration) {
    let mut write = move || {
        let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    };
    match patience {
        Patience::Unlimited => write(),
        Patience::Limited => {
            let _ = limit::within(limit, write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::Instant;

    #[test]
    fn a_reader_that_hangs_is_not_waited_for_hlt_42() {
        // Far more than a pipe holds; the reading end stays open and nobody reads.
        let (reader, writer) = std::io::pipe().unwrap();
        let begin = Instant::now();
        print(writer, "x".repeat(1 << 20), Patience::Limited, Duration::from_millis(100));
        assert!(begin.elapsed() < Duration::from_secs(30));
        drop(reader);
    }

    #[test]
    fn a_reader_at_a_terminal_gets_all_of_it() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let printing = std::thread::spawn(move || {
            print(writer, "x".repeat(1 << 20), Patience::Unlimited, Duration::ZERO);
        });
        std::thread::sleep(Duration::from_millis(100));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        printing.join().unwrap();
        assert_eq!(text.len(), 1 << 20);
    }
}
