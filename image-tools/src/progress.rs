//! Progress on standard error, where that is a terminal; elsewhere nothing.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far a long work has come.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Begins a work of `total` bytes.
    pub fn new(what: &'static str, total: u64) -> Progress {
        // The draw target is silent when standard error is not a terminal.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = "{msg:12} {bar:32} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
        bar.set_message(what);
        Progress(bar)
    }

    /// Says that `done` of `total` bytes are done.
    pub fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// Says that `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
