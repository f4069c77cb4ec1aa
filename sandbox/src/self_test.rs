//! `ralph-sandbox self-test`: the smoke test with our own runner (SBX-15), then once more without each wall, which
//! the probe must notice (SBX-22).

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use serde::Serialize;

use crate::{HostSockets, Limits, Question, Report, Wall};

/// Smaller than the smoke test's, for it is done two dozen times.
const LIMITS: Limits = Limits { memory: 24 << 20, pids: 8, cpu_percent: 50 };

/// Where this program is inside, if the host does not have it below `/usr`.
const INSIDE: &str = "/ralph-sandbox";

/// Walls that need a cgroup.
const LIMIT_WALLS: [Wall; 3] = [Wall::MemoryLimit, Wall::PidsLimit, Wall::CpuLimit];

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
struct Line {
    /// The wall that was left out; `None` where all are up.
    without: Option<Wall>,
    passed: bool,
    detail: String,
}

/// Does it and prints the result. Gives the exit code.
pub fn self_test(json: bool, kvm: bool, cgroup: bool) -> u8 {
    let mut lines = Vec::new();
    let tested = Wall::expected(kvm).into_iter().filter(|wall| cgroup || needs_no_cgroup(*wall));
    for without in std::iter::once(None).chain(tested.map(Some)) {
        let result = match without {
            None => all_walls(kvm, cgroup),
            Some(wall) => one_wall_less(wall, kvm, cgroup),
        };
        let passed = result.is_ok();
        let (Ok(detail) | Err(detail)) = result;
        let line = Line { without, passed, detail };
        if !json {
            let name = without.map_or("all walls".to_owned(), |wall| format!("without {wall}"));
            println!("{} {name}: {}", if passed { "ok    " } else { "FAILED" }, line.detail);
        }
        lines.push(line);
    }
    let passed = lines.iter().all(|line| line.passed);
    if json {
        println!("{}", serde_json::json!({ "format": 1, "passed": passed, "tests": lines }));
    }
    u8::from(!passed)
}

fn needs_no_cgroup(wall: Wall) -> bool {
    !LIMIT_WALLS.contains(&wall)
}

/// SBX-15, whole.
fn all_walls(kvm: bool, cgroup: bool) -> Result<String, String> {
    let test = Test::new(None, kvm, cgroup)?;
    let fallen = test.fallen()?;
    if !fallen.is_empty() {
        return Err(format!("these do not stand: {}", details(&fallen)));
    }
    let trivial = ["/usr/bin/env".to_owned()];
    let second = test.run(&test.question.second_command(&test.program, &trivial))?;
    let environment = "PATH=/usr/bin:/usr/sbin:/bin:/sbin\nLANG=C.UTF-8\n";
    let mut words: Vec<&[u8]> = second.stdout.split(|byte| *byte == b'\n').collect();
    let mut expected: Vec<&[u8]> = environment.as_bytes().split(|byte| *byte == b'\n').collect();
    words.sort_unstable();
    expected.sort_unstable();
    if !second.status.success() || words != expected {
        return Err(format!("the trivial command in the second sandbox: {}", describe(&second)));
    }
    test.marker_is_gone()?;
    Ok("every wall stands, the second sandbox knows nothing of the first".to_owned())
}

fn one_wall_less(wall: Wall, kvm: bool, cgroup: bool) -> Result<String, String> {
    let test = Test::new(Some(wall), kvm, cgroup)?;
    let fallen = test.fallen()?;
    test.marker_is_gone()?;
    if !fallen.iter().any(|(name, _)| *name == wall) {
        return Err(format!("not noticed; the probe found: {}", details(&fallen)));
    }
    match fallen.iter().find(|(name, _)| *name != wall && !wall.stands_with().contains(name)) {
        Some((other, detail)) => Err(format!("noticed, but {other} fell, too: {detail}")),
        None => Ok(details(&fallen)),
    }
}

/// One probe in one sandbox.
struct Test {
    question: Question,
    without: Option<Wall>,
    cgroup: bool,
    /// Its path inside.
    program: String,
    bound: Option<String>,
    _sockets: HostSockets,
}

impl Test {
    fn new(without: Option<Wall>, kvm: bool, cgroup: bool) -> Result<Self, String> {
        let exe = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
        let exe = exe.to_str().ok_or("the path of this program is not UTF-8")?.to_owned();
        // Without a mount namespace there is nothing to bind into.
        let is_there = Path::new(&exe).starts_with("/usr") || without == Some(Wall::MountNamespace);
        let bound = (!is_there).then(|| format!("{exe}:{INSIDE}"));
        let program = if is_there { exe } else { INSIDE.to_owned() };
        let sockets = HostSockets::listen().map_err(|e| format!("cannot listen on the host: {e}"))?;
        let mounts = bound.iter().map(|_| INSIDE.to_owned()).collect();
        let question = Question::new(LIMITS, &sockets, mounts, kvm).map_err(|e| format!("cannot ask: {e}"))?;
        Ok(Self { question, without, cgroup, program, bound, _sockets: sockets })
    }

    /// The walls that do not stand, as the probe says, with its details.
    fn fallen(&self) -> Result<Vec<(Wall, String)>, String> {
        let output = self.run(&self.question.first_command(&self.program))?;
        let report = Report::parse(&output.stdout, &self.question.expected());
        let report = report.map_err(|e| format!("{}; {}", crate::error::chain(&e), describe(&output)))?;
        let fallen = report.failed().filter(|assertion| self.cgroup || needs_no_cgroup(assertion.name));
        let fallen: Vec<_> = fallen.map(|assertion| (assertion.name, assertion.detail.clone())).collect();
        let code = i32::from(report.failed().next().is_some());
        if output.status.code() == Some(code) { Ok(fallen) } else { Err(describe(&output)) }
    }

    fn run(&self, command: &[String]) -> Result<Output, String> {
        let mut run = Command::new("/proc/self/exe");
        run.args(["run", "--deadline", "60000"]);
        run.args(["--memory", &LIMITS.memory.to_string(), "--pids", &LIMITS.pids.to_string()]);
        run.args(["--cpu", &LIMITS.cpu_percent.to_string()]);
        run.args(self.bound.iter().flat_map(|bind| ["--bind", bind]));
        run.args(self.without.iter().flat_map(|wall| ["--without", wall.name()]));
        run.args(self.question.kvm.then_some("--kvm"));
        run.args((!self.cgroup).then_some("--no-cgroup"));
        run.arg("--").args(command.iter().map(OsStr::new));
        run.output().map_err(|e| format!("cannot run this program: {e}"))
    }

    /// SBX-15: from outside.
    fn marker_is_gone(&self) -> Result<(), String> {
        let path = self.question.marker_on_host();
        if path.symlink_metadata().is_ok() { Err(format!("{} is on the host", path.display())) } else { Ok(()) }
    }
}

fn details(fallen: &[(Wall, String)]) -> String {
    let texts: Vec<String> = fallen.iter().map(|(wall, detail)| format!("{wall}: {detail}")).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join("; ") }
}

fn describe(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}, standard error {:?}, output {:?}", output.status, text(&output.stderr), text(&output.stdout))
}
