//! What leads the loader away from the plan: variables, lines of loader.conf, entries that are not ours.
//!
//! Nothing is called a danger by its looks. The model is asked, with the thing and without it, everything the loader will be
//! asked before the next update is over ([`Asked::choices`]); only what changes an answer endangers the plan (DOC-4).

use boot_entries::loader::ConfLine;
use boot_entries::{Entry, EspState, LoaderVars, Prediction};

use super::finding::{Finding, Repair, Severity};
use crate::plan::Asked;
use crate::session::describe;
use crate::vars::LoaderVariable;
use crate::vitals::Firmware;

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choosing<'a> {
    pub asked: Asked<'a>,
    pub conf: &'a [ConfLine],
    /// What an update would stage.
    pub next: Option<&'a Entry>,
    pub firmware: Option<&'a Firmware>,
    /// Names of the entries of ours that are whole.
    pub whole: &'a [String],
    pub program: &'a str,
    /// The ESP can be written to.
    pub writable: bool,
}

const WHY_DANGER: &str =
    "it decides before the counters do: an update may not be tried, or a failed one may boot again and again";
const WHY_HARMLESS: &str = "it changes nothing as things are, and may when entries come and go";

pub(super) fn find(c: &Choosing<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(variable(c, LoaderVariable::OneShot, c.asked.vars.one_shot.as_deref()));
    found.extend(variable(c, LoaderVariable::Default, c.asked.vars.default.as_deref()));
    found.extend(default_line(c));
    found.extend(preferred(c));
    found.extend(c.asked.state.foreign.iter().filter_map(|name| foreign(c, name)));
    found
}

/// Variables that the model goes without (UPD-50).
pub(super) fn unreadable(variables: &[String]) -> Vec<Finding> {
    let why = "what boots next is told as if it were not there";
    let finding = |what: &String| Finding::new("variable-unreadable", Severity::Warning, what.clone(), why);
    let remedy =
        "look whether the firmware shows its other variables; a reset of its settings takes the loader's away, too";
    variables.iter().map(|what| finding(what).remedy(remedy)).collect()
}

/// One thing that may lead the loader away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misleading<'a> {
    OneShot,
    Default,
    Line,
    Foreign(&'a str),
}

/// The machine with those only that are kept.
fn world(c: &Choosing<'_>, keep: &dyn Fn(Misleading<'_>) -> bool) -> (EspState, LoaderVars) {
    let foreign = c.asked.state.foreign.iter().map(String::as_str);
    let gone: Vec<&str> = foreign.filter(|name| !keep(Misleading::Foreign(name))).collect();
    let mut state = c.asked.state.without(&gone);
    let mut vars = c.asked.vars.clone();
    if !keep(Misleading::Line) {
        state.conf = state.conf.without_default();
    }
    if !keep(Misleading::OneShot) {
        vars.one_shot = None;
    }
    if !keep(Misleading::Default) {
        vars.default = None;
    }
    (state, vars)
}

/// The files that would boot, question by question; the reason may be another one for the same choice.
fn choices(c: &Choosing<'_>, keep: &dyn Fn(Misleading<'_>) -> bool) -> Vec<Option<String>> {
    let (state, vars) = world(c, keep);
    let answers = Asked { state: &state, vars: &vars, ..c.asked }.choices(c.next);
    let file = |answer: Prediction| match answer {
        Prediction::Boots { file_name, .. } => Some(file_name),
        _ => None,
    };
    answers.into_iter().map(file).collect()
}

/// Does it change an answer: as things are, or by itself? One may hide behind another that says the same, and two may do
/// together what neither does alone.
fn endangers(c: &Choosing<'_>, what: Misleading<'_>) -> bool {
    choices(c, &|_| true) != choices(c, &|other| other != what)
        || choices(c, &|_| false) != choices(c, &|other| other == what)
}

/// What boots when this alone is taken away.
fn now_without(c: &Choosing<'_>, what: Misleading<'_>) -> Prediction {
    let (state, vars) = world(c, &|other| other != what);
    Asked { state: &state, vars: &vars, ..c.asked }.now()
}

/// Would this be a good thing to boot? What stands in the way of the order may be all that keeps a broken entry from it.
fn is_good(c: &Choosing<'_>, prediction: &Prediction) -> bool {
    match prediction {
        Prediction::Boots { file_name, entry: Some(name), .. } => !name.is_exhausted() && c.whole.contains(file_name),
        _ => false,
    }
}

fn variable(c: &Choosing<'_>, variable: LoaderVariable, value: Option<&str>) -> Option<Finding> {
    let what = format!("the EFI variable {} is \"{}\"", variable.name(), value?);
    let (id, misleading) = match variable {
        LoaderVariable::OneShot => ("one-shot-variable", Misleading::OneShot),
        _ => ("default-variable", Misleading::Default),
    };
    Some(judged(c, id, what, misleading, Repair::Variable(variable), true))
}

fn default_line(c: &Choosing<'_>) -> Option<Finding> {
    let lines: Vec<ConfLine> = c.conf.iter().filter(|line| line.key == "default").cloned().collect();
    let what = format!("loader/loader.conf has the line \"default {}\"", lines.last()?.value);
    Some(judged(c, "default-in-conf", what, Misleading::Line, Repair::ConfLines(lines), c.writable))
}

fn judged(
    c: &Choosing<'_>,
    id: &'static str,
    what: String,
    misleading: Misleading<'_>,
    repair: Repair,
    possible: bool,
) -> Finding {
    if !endangers(c, misleading) {
        let finding = Finding::new(id, Severity::Warning, what, WHY_HARMLESS);
        return finding.remedy(by_hand(&repair)).run_if(by_hand_line(&repair));
    }
    let after = now_without(c, misleading);
    let finding = Finding::new(id, Severity::Danger, what, WHY_DANGER);
    if is_good(c, &after) && possible {
        finding.remedy(format!("take it away; then {} boots", describe(&after))).fix(repair, c.program)
    } else {
        // Without it something worse might boot, so nobody but a person decides (DOC-22).
        let (by_hand, after) = (by_hand(&repair), describe(&after));
        finding.remedy(format!("{by_hand}; without it the loader would boot {after}: look at the other findings first"))
    }
}

fn by_hand(repair: &Repair) -> String {
    match repair {
        Repair::Variable(LoaderVariable::OneShot) => "nothing, if the next boot is meant to be that one; else clear it",
        Repair::Variable(_) => "clear it, unless somebody needs it",
        _ => "remove the line from loader/loader.conf on the EFI partition, unless somebody needs it",
    }
    .to_owned()
}

fn by_hand_line(repair: &Repair) -> Option<&'static str> {
    match repair {
        Repair::Variable(LoaderVariable::OneShot) => Some("bootctl set-oneshot ''"),
        Repair::Variable(LoaderVariable::Default) => Some("bootctl set-default ''"),
        Repair::Variable(LoaderVariable::Preferred) => Some("bootctl set-preferred ''"),
        _ => None,
    }
}

impl Finding {
    fn run_if(self, command: Option<&str>) -> Self {
        match command {
            Some(command) => self.run(command),
            None => self,
        }
    }
}

/// The first release that knows `preferred`.
const KNOWS_PREFERRED: u32 = 260;

/// Does this loader obey a preferred entry that is named somewhere? The model knows nothing of it.
pub(super) fn obeys_preferred(firmware: Option<&Firmware>, conf: &[ConfLine]) -> bool {
    let named = |firmware: &Firmware| firmware.preferred.is_some() || conf.iter().any(|line| line.key == "preferred");
    firmware.is_some_and(|firmware| knows_preferred(firmware) && named(firmware))
}

fn knows_preferred(firmware: &Firmware) -> bool {
    firmware.release().is_some_and(|release| release >= KNOWS_PREFERRED)
}

fn preferred(c: &Choosing<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let (severity, why) = match c.firmware {
        Some(firmware) if knows_preferred(firmware) => (
            Severity::Danger,
            "this loader obeys it before its own order, and what is told here of the next boot does not take it into account",
        ),
        _ => (Severity::Warning, "loaders from 260 on obey it before their own order; older ones, as this one, do not"),
    };
    if let Some(value) = c.firmware.and_then(|firmware| firmware.preferred.as_ref()) {
        let what = format!("the EFI variable LoaderEntryPreferred is \"{value}\"");
        let finding = Finding::new("preferred-variable", severity, what, why);
        // The model knows nothing of it: what it says is what boots without it.
        found.push(if severity == Severity::Danger && is_good(c, &c.asked.now()) {
            let text = format!("take it away; then {} boots", describe(&c.asked.now()));
            finding.remedy(text).fix(Repair::Variable(LoaderVariable::Preferred), c.program)
        } else {
            let repair = Repair::Variable(LoaderVariable::Preferred);
            finding.remedy(by_hand(&repair)).run_if(by_hand_line(&repair))
        });
    }
    if let Some(line) = c.conf.iter().rfind(|line| line.key == "preferred") {
        let what = format!("loader/loader.conf has the line \"preferred {}\"", line.value);
        let lines: Vec<ConfLine> = c.conf.iter().filter(|line| line.key == "preferred").cloned().collect();
        let finding = Finding::new("preferred-in-conf", severity, what, why);
        found.push(if severity == Severity::Danger && is_good(c, &c.asked.now()) && c.writable {
            let text = format!("make it a comment; then {} boots", describe(&c.asked.now()));
            finding.remedy(text).fix(Repair::ConfLines(lines), c.program)
        } else {
            finding.remedy(by_hand(&Repair::ConfLines(lines)))
        });
    }
    found
}

fn foreign(c: &Choosing<'_>, name: &str) -> Option<Finding> {
    let state = c.asked.state;
    if state.halts_the_loader(name) {
        return None; // It is `loader-halts`.
    }
    let shown = state.is_shown(name, c.asked.architecture);
    let danger = shown && endangers(c, Misleading::Foreign(name));
    let remedy = format!("if nobody needs it, remove loader/entries/{name} from the EFI partition");
    Some(judged_foreign(state, name, danger, shown).remedy(remedy))
}

fn judged_foreign(state: &EspState, name: &str, danger: bool, shown: bool) -> Finding {
    // What the loader does not show is not counted, and does not boot either.
    if shown && looks_counted(name) {
        return Finding::new(
            "uncounted-entry",
            Severity::Danger,
            format!("{name} looks like an entry with a counter, and the loader does not count it"),
            "an entry that is not counted boots for ever, however often it fails",
        );
    }
    if state.uses_efi_key(name) {
        return Finding::new(
            "efi-key",
            if danger { Severity::Danger } else { Severity::Warning },
            format!("{name} is not ours, and starts a program by an `efi` key"),
            "newer loaders do not count such an entry: where it sorts first it boots for ever",
        );
    }
    let (severity, why) = match (danger, shown) {
        (true, _) => (Severity::Danger, "it boots where an entry of ours should, and no counter ends it"),
        (false, true) => (Severity::Warning, "it boots when no entry of ours can, and counts as no fallback"),
        (false, false) => (Severity::Note, "the loader does not show it; it only takes room"),
    };
    Finding::new("foreign-entry", severity, format!("{name} is a boot entry that is not ours"), why)
}

/// A name of ours in all but the counter, which the loader then does not see either (LDR-2).
fn looks_counted(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let stem = name.strip_suffix(".conf").unwrap_or(&name);
    let Some((stem, counter)) = stem.rsplit_once('+') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
    let counts = |text: &str| digits(text) && text.parse::<u32>().is_ok_and(|n| i32::try_from(n).is_ok());
    stem.starts_with("ralphos-") && !(counts(left) && counts(done))
}
