//! What `apply` tells while it works: a bar on a terminal, plain lines elsewhere, JSON events on request. All on
//! standard error; standard output belongs to the result.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The steps of an apply, named after the rules of specs/boot-entries.md section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// UPD-1.
    Check,
    /// UPD-2.
    Fence,
    /// UPD-3.
    Write,
    /// UPD-4.
    ReadBack,
    /// UPD-5.
    Payloads,
    /// UPD-6.
    Stage,
}

impl Step {
    /// Name in JSON events.
    pub fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Fence => "fence",
            Step::Write => "write",
            Step::ReadBack => "read-back",
            Step::Payloads => "payloads",
            Step::Stage => "stage",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Step::Check => "checking the image and this machine",
            Step::Fence => "taking the target slot's entry away",
            Step::Write => "writing the slot",
            Step::ReadBack => "reading the slot back",
            Step::Payloads => "writing kernel and initrd",
            Step::Stage => "staging the boot entry",
        }
    }
}

/// How to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A bar on a terminal, plain lines elsewhere.
    Auto,
    /// One line a step, and one every ten seconds of a long step.
    Plain,
    /// One JSON object a line.
    Json,
    /// Nothing.
    None,
}

/// Receives what happens. The fake of the tests keeps a list.
pub trait Progress {
    /// A step begins; `total` is its size in bytes where it has one.
    fn begin(&mut self, step: Step, total: Option<u64>);
    /// So many bytes of the step are done.
    fn done(&mut self, bytes: u64);
    /// The last step is over.
    fn end(&mut self);
}

/// The progress reporter for `mode`.
pub fn reporter(mode: Mode) -> Box<dyn Progress> {
    match mode {
        Mode::None => Box::new(Silent),
        Mode::Json => Box::new(Lines { json: true, ..Lines::default() }),
        Mode::Plain => Box::new(Lines::default()),
        Mode::Auto if std::io::stderr().is_terminal() => Box::new(Bar::default()),
        Mode::Auto => Box::new(Lines::default()),
    }
}

/// Tells nothing.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: Step, _: Option<u64>) {}
    fn done(&mut self, _: u64) {}
    fn end(&mut self) {}
}

#[derive(Debug, Default)]
struct Lines {
    json: bool,
    step: Option<(Step, Option<u64>)>,
    told: Option<Instant>,
}

impl Lines {
    fn interval(&self) -> Duration {
        Duration::from_secs(if self.json { 1 } else { 10 })
    }

    fn line(&self, step: Step, done: Option<u64>, total: Option<u64>) {
        let mut err = std::io::stderr().lock();
        // A reader that went away is no reason to stop an update.
        let _ = if self.json {
            let event = serde_json::json!({ "event": "progress", "step": step.name(), "done": done, "total": total });
            writeln!(err, "{event}")
        } else {
            match (done, total) {
                (Some(done), Some(total)) if total > 0 => {
                    writeln!(err, "{}: {} %", step.sentence(), done.min(total) * 100 / total)
                }
                _ => writeln!(err, "{}", step.sentence()),
            }
        };
    }
}

impl Progress for Lines {
    fn begin(&mut self, step: Step, total: Option<u64>) {
        self.step = Some((step, total));
        self.told = Some(Instant::now());
        self.line(step, None, total);
    }

    fn done(&mut self, bytes: u64) {
        let Some((step, total)) = self.step else { return };
        if self.told.is_some_and(|at| at.elapsed() >= self.interval()) {
            self.told = Some(Instant::now());
            self.line(step, Some(bytes), total);
        }
    }

    fn end(&mut self) {}
}

#[derive(Debug, Default)]
struct Bar {
    bar: Option<ProgressBar>,
}

impl Progress for Bar {
    fn begin(&mut self, step: Step, total: Option<u64>) {
        self.end();
        let template = match total {
            Some(_) => "{msg:36} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{msg}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style);
        bar.set_message(step.sentence());
        bar.tick();
        self.bar = Some(bar);
    }

    fn done(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}
