//! Runs a command in "its own" sandbox (HLT-8): that of `ralph-sandbox run`, with walls left out as told.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const PROGRAM: &str = "/usr/bin/ralph-sandbox";
/// The code of `ralph-sandbox run` when no sandbox could be made (SBX-21).
const NOT_MADE: i32 = 125;

/// Runs what the request's body asks for, and gives exit code and output.
pub fn run(body: &[u8], without: &[String]) -> Result<Value> {
    let request: Value = serde_json::from_slice(body).context("the body is not JSON")?;
    let arguments = arguments(&request, without)?;
    let output = Command::new(PROGRAM)
        .args(&arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {PROGRAM}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(NOT_MADE) => bail!("no sandbox: {stderr}"),
        Some(code) => Ok(json!({ "exit": code, "stdout": String::from_utf8_lossy(&output.stdout), "stderr": stderr })),
        None => bail!("{PROGRAM} was ended: {}: {stderr}", output.status),
    }
}

fn arguments(request: &Value, without: &[String]) -> Result<Vec<String>> {
    let number = |name: &str| request[name].as_u64().with_context(|| format!("the request has no number {name:?}"));
    let mut arguments = vec!["run".to_owned()];
    for (option, name) in
        [("--memory", "memory"), ("--pids", "pids"), ("--cpu", "cpu-percent"), ("--deadline", "deadline-ms")]
    {
        arguments.extend([option.to_owned(), number(name)?.to_string()]);
    }
    if request["kvm"] == true {
        arguments.push("--kvm".into());
    }
    for wall in without {
        arguments.extend(["--without".into(), wall.clone()]);
    }
    arguments.push("--".into());
    let command = request["command"].as_array().context("the request has no command")?;
    for word in command {
        arguments.push(word.as_str().context("a word of the command is no string")?.to_owned());
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_the_programs_arguments() {
        let request = json!({
            "contract": 1, "command": ["/usr/bin/echo", "-n"], "memory": 1024, "pids": 3, "cpu-percent": 50,
            "kvm": false, "deadline-ms": 20000
        });
        let expected = "run --memory 1024 --pids 3 --cpu 50 --deadline 20000 --without seccomp -- /usr/bin/echo -n";
        assert_eq!(arguments(&request, &["seccomp".into()]).expect("whole").join(" "), expected);
        assert!(arguments(&json!({ "command": ["/x"] }), &[]).is_err());
    }
}
