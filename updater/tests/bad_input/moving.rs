//! Files that change while they are read: each byte is read once, and what was hashed is what is used (IMG-3, THR-15).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use updater::config::Policy;
use updater::progress::{Progress, Step};
use updater::source::Source;

use crate::lab::{Ending, Lab, good_spec};
use crate::parts::{Parts, Plain, key, program_like, trust};

/// Does something when a step begins.
struct At<'a> {
    step: Step,
    act: &'a mut dyn FnMut(),
}

impl Progress for At<'_> {
    fn begin(&mut self, step: Step, _total: Option<u64>) {
        if step == self.step {
            (self.act)();
        }
    }

    fn done(&mut self, _done: u64) {}

    fn end(&mut self) {}
}

/// A good image, and another one of the same length but for its version.
fn images() -> [Vec<u8>; 2] {
    ["3.0.0", "4.0.0"].map(|version| {
        let plain = Plain { root: program_like(5 * 4096, version.as_bytes()[0].into()), ..Plain::small() };
        plain.build(&image_format::ImageSpec { version: version.to_owned(), ..good_spec() }, &[key(1)])
    })
}

/// Applies a file to which `act` happens when `step` begins.
fn apply(lab: &Lab, path: &Path, step: Step, mut act: impl FnMut()) -> anyhow::Result<updater::apply::Outcome> {
    let stream = Source::File(path.to_owned()).open().unwrap();
    lab.apply_from(stream.reader, &trust(&[1], 1), &Policy::default(), &mut At { step, act: &mut act })
}

#[test]
fn thr_15_a_file_that_changes_while_it_is_read() {
    let lab = Lab::new();
    let [image, other] = images();
    let path = lab.path("image.zst");
    let write = |at: u64, bytes: &[u8]| {
        OpenOptions::new().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
    };
    let data = (image.len() - Parts::of(&image).data.len()) as u64;
    let append = || OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    let cut = || File::options().write(true).open(&path).unwrap().set_len(image.len() as u64 - 1).unwrap();
    let other_data = || write(data, &Parts::of(&other).data);
    let linux_on = data + Parts::of(&image).encoded(3).start as u64;
    let other_payloads = || write(linux_on, &[0; 100]);
    let acts: [(&str, Step, &dyn Fn()); 4] = [
        ("chunk-damaged", Step::Fence, &other_data),
        ("chunk-damaged", Step::ReadBack, &other_payloads),
        ("truncated", Step::Write, &cut),
        ("trailing-data", Step::Payloads, &append),
    ];
    for (cause, step, act) in acts {
        fs::write(&path, &image).unwrap();
        let result = apply(&lab, &path, step, act);
        let ending = lab.ending(cause, result);
        assert_eq!(ending, Ending { exit: 1, reason: "fenced", cause }, "{step:?}");
    }
}

/// Whoever opened it again, to check first and read then, would take the other file.
#[test]
fn thr_15_a_file_is_opened_once() {
    let lab = Lab::new();
    let [image, other] = images();
    let (path, new) = (lab.path("image.zst"), lab.path("new.zst"));
    fs::write(&path, &image).unwrap();
    fs::write(&new, &other).unwrap();
    let outcome = apply(&lab, &path, Step::Fence, || fs::rename(&new, &path).unwrap()).unwrap();
    let updater::apply::Outcome::Staged(summary) = outcome else { panic!("{outcome:?}") };
    assert_eq!(summary.entry.os_version(), "3.0.0");
    assert_eq!(fs::read(&path).unwrap(), other);
}
