//! What each command does: open the machine, take the lock, call the library, put the result into words.

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use boot_guard::GuardClient;
use disk_layout::{Slot, SysRoot};
use image_format::TrustPolicy;
use serde_json::json;
use updater::apply::{ApplyError, Outcome, Request, Traffic, read_trusted};
use updater::choice::{Way, Ways, apply_cheapest};
use updater::config::{self, LOCAL_DIR, Policy, VENDOR_DIR};
use updater::doctor::fix::{NotRepaired, Repaired};
use updater::doctor::{self, Diagnosis};
use updater::explain;
use updater::fetch::{self, Rate, Told};
use updater::firmware_trust::{FirmwareTrust, refusal};
use updater::host::{Device, Host, HostError, ImageFile};
use updater::loader::{self, Done, Retry};
use updater::progress;
use updater::refuse::{Downgrade, KnownBad};
use updater::release;
use updater::session::{CommitOutcome, Fencing, GivenUp, Session, hex};
use updater::source::{Source, Stream, with_chunks};
use updater::status;
use updater::stop::Stop;

use crate::cli::{Apply, Cli, Command, Trust, Verify};
use crate::report::Answer;

/// Runs the command.
pub fn run(cli: &Cli) -> anyhow::Result<Answer> {
    match &cli.command {
        Command::Apply(args) => apply_image(cli, args),
        Command::Status => tell_status(cli),
        Command::Verify(args) => verify(cli, args),
        Command::Rollback { reboot } => rollback(cli, *reboot),
        Command::Commit => commit(cli),
        Command::Reject { slot } => reject(cli, *slot),
        Command::Doctor { fix } => ask_doctor(cli, *fix),
        Command::Loader { retry } => update_loader(cli, *retry),
        Command::Explain => tell_explanation(cli),
        Command::History => history(cli),
    }
}

fn host(cli: &Cli) -> anyhow::Result<Box<dyn Host>> {
    Ok(open_host(cli)?)
}

fn open_host(cli: &Cli) -> Result<Box<dyn Host>, HostError> {
    Ok(match &cli.disk {
        Some(file) => Box::new(ImageFile::open(file)?),
        None => Box::new(Device::find(SysRoot::real())?),
    })
}

/// Where policy and keys come from (IFC-12).
fn config_dirs(cli: &Cli) -> Vec<PathBuf> {
    match (&cli.config, &cli.disk) {
        (Some(dir), _) => vec![dir.clone()],
        (None, Some(_)) => Vec::new(),
        (None, None) => vec![VENDOR_DIR.into(), LOCAL_DIR.into()],
    }
}

fn trust(cli: &Cli, named: &Trust) -> anyhow::Result<(Policy, TrustPolicy)> {
    let dirs = config_dirs(cli);
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    if dirs.is_empty() && named.keys.is_empty() {
        bail!(
            "with --disk no keys are taken from this machine: name the trusted ones with --trust PUB.pem or --config DIR"
        );
    }
    let policy = config::load_policy(&dirs)?;
    let trust = config::load_trust(&dirs, &named.keys, policy.threshold)?;
    Ok((policy, trust))
}

fn apply_image(cli: &Cli, args: &Apply) -> anyhow::Result<Answer> {
    if args.reboot && cli.disk.is_some() {
        bail!("--reboot makes no sense with --disk: nothing runs from a disk image");
    }
    let (policy, trust) = trust(cli, &args.trust)?;
    let host = host(cli)?;
    let stop = Stop::default();
    // Before anything has a thread of its own.
    stop.on_signals().context("cannot wait for signals")?;
    if args.background {
        stand_back();
    }
    let rate = fetch::rate(&policy.network, args.limit_rate)?;
    let open = |source: &Source| {
        // A delta lies where its list says, or in a mirror's folder.
        let named = if *source == args.image { &args.mirrors.urls[..] } else { &[] };
        open_image(source, named, &policy, rate, &stop)
    };
    let settings = fetch::settings(&policy.network, rate)?;
    let deltas_beside = |url: &str| fetch::fetch_list(url, &settings);
    let ways = Ways { open: &open, deltas_beside: &deltas_beside };
    let request = Request {
        trust: &trust,
        policy: &policy,
        downgrade: if args.allow_downgrade { Downgrade::Allow } else { Downgrade::Refuse },
        known_bad: if args.retry_failed { KnownBad::Retry } else { KnownBad::Refuse },
        stop: &stop,
        workers: args.workers,
    };
    let mut reporter = progress::reporter(args.progress);
    let applied = apply_cheapest(&*host, &args.image, &ways, &request, &mut *reporter)
        .with_context(|| format!("{} was not applied", args.image))?;
    // Bar and result do not share a line.
    drop(reporter);
    let summary = match applied.outcome {
        Outcome::Staged(summary) => summary,
        Outcome::AlreadyRunning => return Ok(Answer::nothing("already-running", "this very system runs already")),
        Outcome::AlreadyStaged => {
            let mut answer = Answer::nothing("already-staged", "this very system is staged already: reboot to try it");
            if args.reboot {
                reboot(&mut answer);
            }
            return Ok(answer);
        }
    };
    let entry = &summary.entry;
    let mut text = format!(
        "version {} is in slot {} and boots next, on trial ({})",
        entry.os_version(),
        entry.slot(),
        summary.file_name
    );
    text.push_str(&bytes_in_words(&summary.traffic, &applied.told));
    text.push_str(&way_in_words(&applied.way));
    let told = applied.told.iter().flat_map(Told::notes);
    let notes: Vec<String> = summary.notes.iter().chain(&applied.notes).cloned().chain(told).collect();
    push_notes(&mut text, &notes);
    let fields = json!({
        "slot": entry.slot().to_string(),
        "generation": entry.generation().get(),
        "version": entry.os_version(),
        "system_id": hex(&entry.options.system),
        "root_hash": hex(&entry.options.root_hash),
        "entry": summary.file_name,
        "notes": notes,
        "bytes": bytes(&summary.traffic, &applied.told),
        "way": way(&applied.way),
    });
    let mut answer = Answer::done(text, fields);
    if args.reboot {
        reboot(&mut answer);
    }
    Ok(answer)
}

/// IFC-6.
fn bytes(Traffic { taken, changed }: &Traffic, told: &[Told]) -> serde_json::Value {
    json!({
        "received": received(told),
        "fetched": taken.fetched,
        "in_place": taken.in_place,
        "reused": taken.reused,
        "missed": taken.missed,
        "written": changed.written,
        "zeroed": changed.zeroed,
        "equal": changed.equal,
    })
}

fn bytes_in_words(Traffic { taken, changed }: &Traffic, told: &[Told]) -> String {
    let network = received(told).map_or(String::new(), |bytes| format!(" ({bytes} over the network)"));
    format!(
        "\nfetched {} bytes{network}; {} were in place, {} came from the running slot; {} were written",
        taken.fetched, taken.in_place, taken.reused, changed.written
    )
}

/// FET-70; `None` where there was no network.
fn received(told: &[Told]) -> Option<u64> {
    told.iter().filter_map(Told::received).reduce(|all, more| all + more)
}

/// IFC-8.
fn way(way: &Way) -> serde_json::Value {
    let (by, image_bytes, delta_bytes, delta) = match way {
        Way::Named { is_delta } => (if *is_delta { "delta" } else { "image" }, None, None, None),
        Way::Image { image_bytes, delta_bytes } => ("image", Some(image_bytes), Some(delta_bytes), None),
        Way::Delta { image_bytes, delta_bytes, url } => ("delta", Some(image_bytes), Some(delta_bytes), Some(url)),
    };
    json!({ "by": by, "image_bytes": image_bytes, "delta_bytes": delta_bytes, "delta": delta })
}

fn way_in_words(way: &Way) -> String {
    match way {
        Way::Named { .. } => String::new(),
        Way::Image { image_bytes, delta_bytes } => {
            let why = if delta_bytes < image_bytes { ", and could not be used" } else { "" };
            format!(
                "\nby the image itself: {image_bytes} bytes of it are not here; the shortest delta has {delta_bytes}{why}"
            )
        }
        Way::Delta { image_bytes, delta_bytes, url } => format!(
            "\nby the delta {url}: it has {delta_bytes} bytes; of the image itself {image_bytes} would have been fetched"
        ),
    }
}

/// Whether anything comes of it is the kernel's business, and no update fails for it.
fn stand_back() {
    let _ = disk_layout::io_when_idle();
    let _ = rustix::process::nice(19);
}

fn tell_status(cli: &Cli) -> anyhow::Result<Answer> {
    let status = status::gather(&*host(cli)?)?;
    Ok(Answer::done(status::text(&status), serde_json::to_value(&status)?))
}

fn tell_explanation(cli: &Cli) -> anyhow::Result<Answer> {
    let host = host(cli)?;
    let explanation = explain::explain(&explain::gather::gather(&*host, &host.command())?);
    Ok(Answer::done(explain::text::text(&explanation), serde_json::to_value(&explanation)?))
}

fn ask_doctor(cli: &Cli, fix: bool) -> anyhow::Result<Answer> {
    let host = match open_host(cli) {
        Ok(host) => host,
        // What keeps every other command from working is the doctor's to tell.
        Err(error) => match doctor::diagnose_unopened(&error) {
            Some(diagnosis) => return diagnosed(&diagnosis, fix.then_some((&[], &[]))),
            None => return Err(error.into()),
        },
    };
    if !fix {
        return diagnosed(&doctor::diagnose(&*host), None);
    }
    let fixed = doctor::fix::fix(&*host)?;
    diagnosed(&fixed.diagnosis, Some((&fixed.repaired, &fixed.not_repaired)))
}

fn diagnosed(diagnosis: &Diagnosis, fixed: Option<(&[Repaired], &[NotRepaired])>) -> anyhow::Result<Answer> {
    let not_repaired = fixed.map_or(&[][..], |(_, not_repaired)| not_repaired);
    let text = doctor::text::text(diagnosis, fixed.map(|(repaired, _)| repaired), not_repaired);
    let mut fields = serde_json::to_value(diagnosis)?;
    if let Some((repaired, not_repaired)) = fixed {
        fields["repaired"] = serde_json::to_value(repaired)?;
        fields["not_repaired"] = serde_json::to_value(not_repaired)?;
    }
    Ok(if diagnosis.is_endangered() { Answer::endangered(text, fields) } else { Answer::done(text, fields) })
}

fn verify(cli: &Cli, args: &Verify) -> anyhow::Result<Answer> {
    let (policy, trust) = trust(cli, &args.trust)?;
    let context = || format!("{} is not a usable image", args.image);
    let stream =
        open_image(&args.image, &args.mirrors.urls, &policy, fetch::rate(&policy.network, None)?, &Stop::default())?;
    let read = read_through(stream, &trust).with_context(context)?;
    let mut text = format!("{}: version {}, system {}: every byte is as signed", args.image, read.version, read.system);
    if let Some(base) = &read.base {
        text.push_str(&format!(
            "; a delta for machines that run system {base}, what it makes of that was not looked at"
        ));
    }
    let fields = json!({ "version": read.version, "system_id": read.system, "delta_from": read.base });
    Ok(Answer::done(text, fields))
}

/// Servers are asked when the head is read.
fn open_image(
    image: &Source,
    named: &[String],
    policy: &Policy,
    rate: Option<Rate>,
    stop: &Stop,
) -> anyhow::Result<Stream> {
    let settings = fetch::settings(&policy.network, rate)?;
    let mirrors = match image {
        Source::Url(url) => fetch::mirrors(url, named, &policy.network)?,
        Source::File(_) | Source::Stdin => Vec::new(),
    };
    Ok(image.open_with(mirrors, settings, stop)?)
}

/// What an image is that was read to its end.
struct ReadThrough {
    system: String,
    version: String,
    base: Option<String>,
}

fn read_through(stream: Stream, trust: &TrustPolicy) -> anyhow::Result<ReadThrough> {
    let mut image = with_chunks(read_trusted(stream.reader, trust)?).map_err(ApplyError::Source)?;
    let base = image.base().map(|base| base.to_string());
    while let Some(mut payload) = image.next_payload()? {
        // What a delta refers to is not looked at here, but its own bytes are.
        if base.is_some() {
            payload.drain()?;
            continue;
        }
        while payload.next_chunk()?.is_some() {}
    }
    let read = ReadThrough { system: image.system_id().to_string(), version: image.manifest().version.clone(), base };
    image.finish()?;
    Ok(read)
}

fn rollback(cli: &Cli, and_reboot: bool) -> anyhow::Result<Answer> {
    if and_reboot && cli.disk.is_some() {
        bail!("--reboot makes no sense with --disk: nothing runs from a disk image");
    }
    let host = host(cli)?;
    let lock = host.lock()?;
    let mut session = Session::open(&*host, &lock, Fencing::None)?;
    let trust = FirmwareTrust::of(&*host);
    let mut done = session.rollback(&|esp, ours| refusal(&trust, esp, ours))?;
    session.close()?;
    done.notes.extend(loader::stand_back(&*host));
    let mut answer = given_up(&done);
    if and_reboot {
        reboot(&mut answer);
    }
    Ok(answer)
}

fn reject(cli: &Cli, slot: Slot) -> anyhow::Result<Answer> {
    let host = host(cli)?;
    let lock = host.lock()?;
    let mut session = Session::open(&*host, &lock, Fencing::None)?;
    let trust = FirmwareTrust::of(&*host);
    let done = session.reject(slot, &|esp, ours| refusal(&trust, esp, ours))?;
    session.close()?;
    Ok(match done {
        Some(mut done) => {
            done.notes.extend(loader::stand_back(&*host));
            given_up(&done)
        }
        None => Answer::nothing(
            "nothing-there",
            format!("slot {slot} has nothing that would boot: it is empty, fenced or bad already"),
        ),
    })
}

fn given_up(done: &GivenUp) -> Answer {
    let mut text = format!("slot {} is bad; next boot: {}", done.name.slot, done.fallback.file_name);
    push_notes(&mut text, &done.notes);
    let fields = json!({
        "slot": done.name.slot.to_string(),
        "entry": done.name.to_string(),
        "fallback": done.fallback.file_name,
        "notes": done.notes,
    });
    Answer::done(text, fields)
}

fn commit(cli: &Cli) -> anyhow::Result<Answer> {
    let host = host(cli)?;
    let lock = host.lock()?;
    let mut session = Session::open(&*host, &lock, Fencing::None)?;
    let mut done = session.commit()?;
    session.close()?;
    if cli.disk.is_none() {
        done.notes.extend(tell_the_system(&done));
    }
    if done.already {
        let mut text = format!("slot {} is committed already ({})", done.name.slot, done.name);
        push_notes(&mut text, &done.notes);
        return Ok(Answer::nothing("already-committed", text));
    }
    let mut text = format!("slot {} is committed ({})", done.name.slot, done.name);
    push_notes(&mut text, &done.notes);
    let fields = json!({ "slot": done.name.slot.to_string(), "entry": done.name.to_string(), "notes": done.notes });
    Ok(Answer::done(text, fields))
}

/// The running system is committed: `ralphd` may go on, and nobody ends this boot any more (HLT-3, GRD-23).
fn tell_the_system(done: &CommitOutcome) -> Vec<String> {
    let root = Path::new("/");
    let signed = release::mark_committed(root, done.name.slot, done.name.generation.get());
    let mut notes: Vec<String> =
        signed.err().map(|error| format!("ralphd cannot know of the commit: {error}")).into_iter().collect();
    notes.extend(release::disarm(&GuardClient::new(), root, &reload_systemd));
    notes
}

/// For no longer than 10 s.
fn reload_systemd() -> Result<(), String> {
    let mut child = Process::new("systemctl").arg("daemon-reload").spawn().map_err(|error| error.to_string())?;
    for _ in 0..100 {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("systemctl daemon-reload failed ({status})")),
            Ok(None) => thread::sleep(Duration::from_millis(100)),
            Err(error) => return Err(error.to_string()),
        }
    }
    let _ = child.kill();
    Err("systemctl daemon-reload did not end within 10 s".to_owned())
}

fn update_loader(cli: &Cli, retry: bool) -> anyhow::Result<Answer> {
    let host = host(cli)?;
    let retry = if retry { Retry::Yes } else { Retry::No };
    let (word, program, previous, notes) = match loader::update(&*host, Path::new("/"), retry)? {
        Done::NotShipped => {
            return Ok(Answer::nothing(
                "no-loader",
                format!("this system carries no boot loader ({})", loader::SHIPPED),
            ));
        }
        Done::NotNow(reason, text) => return Ok(Answer::nothing(reason, text)),
        Done::Current { program, notes } => {
            let mut text = format!("{} is in place", program.name());
            push_notes(&mut text, &notes);
            return Ok(Answer::nothing("loader-current", text));
        }
        Done::Newer { ours, default } => {
            let text = format!("{} is in place, and newer than the {} of this system", default.name(), ours.name());
            return Ok(Answer::nothing("loader-newer", text));
        }
        Done::Waits(program) => {
            return Ok(Answer::nothing("loader-waits", format!("{} is tried by the next boot", program.name())));
        }
        Done::Staged(program) => ("staged", program, None, Vec::new()),
        Done::Promoted { program, previous, notes } => ("promoted", program, Some(previous), notes),
    };
    let mut text = match &previous {
        None => format!("{} is tried by the next boot; the present one stays in place", program.name()),
        Some(previous) => {
            format!("{} has started this system, and is in place; {} is kept", program.name(), previous.name())
        }
    };
    push_notes(&mut text, &notes);
    let previous = previous.and_then(|previous| previous.version);
    let fields = json!({ "loader": word, "version": program.version, "previous": previous, "notes": notes });
    Ok(Answer::done(text, fields))
}

fn history(cli: &Cli) -> anyhow::Result<Answer> {
    let host = host(cli)?;
    if !host.records().available() {
        bail!("the history is kept on the machine, in /var: it cannot be read from a disk image");
    }
    let events = host.records().events()?;
    let mut text = String::new();
    for e in &events {
        let detail = if e.detail.is_empty() { String::new() } else { format!(" ({})", e.detail) };
        let name = e.event.as_str();
        text.push_str(&format!(
            "{:20}  {name:12}  slot {}, generation {}, version {}{detail}\n",
            explain::text::when(e.time),
            e.slot,
            e.generation,
            e.version
        ));
    }
    if events.is_empty() {
        text.push_str("nothing is recorded\n");
    }
    Ok(Answer::done(text, json!({ "events": events })))
}

fn push_notes(text: &mut String, notes: &[String]) {
    for note in notes {
        text.push_str("\nnote: ");
        text.push_str(note);
    }
}

/// Through systemd, so that services end in order. What was asked for is done already: that the reboot fails is told,
/// and is no failure of it.
fn reboot(answer: &mut Answer) {
    let why_not = match Process::new("systemctl").arg("reboot").status() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("systemctl reboot failed ({status})")),
        Err(error) => Some(format!("systemctl cannot be run ({error})")),
    };
    answer.fields.insert("rebooting".to_owned(), json!(why_not.is_none()));
    answer.text.push_str(&why_not.map_or("\nrebooting".to_owned(), |why| format!("\nnote: {why}: reboot by hand")));
}
