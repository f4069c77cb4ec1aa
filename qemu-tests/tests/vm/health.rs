//! Systems that boot, and fail what the health gate asks for (specs/health.md, sections 1 to 4): the old slot is back,
//! and `explain` names what failed. Each gives up at once (HLT-34), which saves two boots; three tries are in
//! `scenarios.rs`.

use crate::common::{Fallen, gives_up};
use crate::scenario;
use anyhow::{Result, ensure};
use qemu_tests::guest::Release;

/// A trial of 2.0.0 whose `ralphd` behaves like this is marked bad for just these failed checks, for these reasons.
fn ralphd_fails(name: &str, behaviour: &str, failed: &[(&str, &str)]) -> Result<()> {
    let release = Release::new("2.0.0").with_ralphd(behaviour).given_up_at_once();
    scenario(name, |lab| {
        let fallen = gives_up(lab, &release)?;
        fallen.marked_bad("checks");
        fallen.failed(failed);
        Ok(())
    })
}

#[test]
fn ralphd_crashes_after_three_seconds_hlt_2() -> Result<()> {
    // The shipped checks, with the shipped patience: the lab's two seconds would find it healthy, and rightly so.
    let release = Release::new("2.0.0")
        .with_ralphd("crash-after 3")
        .without("etc/ralph-health-check/checks.d/50-ralphos.toml")
        .given_up_at_once();
    scenario("crash-after-3", |lab| {
        let fallen = gives_up(lab, &release)?;
        fallen.marked_bad("checks");
        let after = ["health", "policy", "sandbox", "api"].map(|name| (name, "after"));
        fallen.failed(&[&[("ralphd", "unit-failed")], &after[..]].concat());
        Ok(())
    })
}

#[test]
fn no_policy_is_loaded_hlt_6() -> Result<()> {
    ralphd_fails("policy-not-loaded", "policy-not-loaded", &[("policy", "json")])
}

#[test]
fn the_policy_endpoint_hangs_hlt_26() -> Result<()> {
    ralphd_fails("policy-hangs", "policy-hangs", &[("policy", "http-answer")])
}

#[test]
fn ralphd_says_that_it_has_failed_and_its_api_is_gone_hlt_5_hlt_9() -> Result<()> {
    // The northbound API is wanted: it is told, too, and changes no verdict (HLT-33).
    ralphd_fails("health-failed", "health-failed\nno-api", &[("health", "json"), ("api", "cannot-connect")])
}

#[test]
fn ralphd_speaks_another_contract_hlt_4() -> Result<()> {
    let all = [("health", "contract"), ("policy", "contract"), ("sandbox", "contract"), ("api", "contract")];
    ralphd_fails("wrong-contract", "wrong-contract", &all)
}

#[test]
fn a_check_that_ignores_sigterm_and_forks_is_killed_hlt_20() -> Result<()> {
    let stubborn = r#"
[check.stubborn]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM HUP INT; echo stubborn; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & while :; do sleep 1; done"]
deadline = "5s"
"#;
    let release = Release::new("2.0.0").with_checks("60-stubborn", stubborn).given_up_at_once();
    scenario("stubborn-check", |lab| {
        let fallen = gives_up(lab, &release)?;
        fallen.marked_bad("checks");
        fallen.failed(&[("stubborn", "deadline")]);
        ensure!(fallen.update["tries"][0]["failed_checks"][0]["output"].to_string().contains("stubborn"));
        Ok(())
    })
}

#[test]
fn a_bad_configuration_is_marked_bad_at_once_hlt_13_hlt_34() -> Result<()> {
    // Nobody asked for `mark-bad` here: what the next boot will show again needs no second try.
    let release = Release::new("2.0.0").with_checks("60-typo", "[check.typo]\nkind = \"comand\"\n");
    scenario("bad-configuration", |lab| {
        let fallen = gives_up(lab, &release)?;
        fallen.marked_bad("checks");
        fallen.failed(&[("configuration", "configuration")]);
        assert_eq!(fallen.trials(), 1);
        Ok(())
    })
}

#[test]
fn emergency_mode_on_trial_ends_in_a_reboot_hlt_64() -> Result<()> {
    let broken = "[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\n\
        [Mount]\nWhat=none\nWhere=/srv\nType=no-such-filesystem\n";
    let release = Release::new("2.0.0").with_required_unit("srv.mount", "local-fs.target", broken).given_up_at_once();
    scenario("emergency", |lab| {
        let fallen = gives_up(lab, &release)?;
        fallen.marked_bad("checks");
        fallen.failed(&[("emergency", "emergency")]);
        let output = fallen.update["tries"][0]["failed_checks"][0]["output"].to_string();
        ensure!(output.contains("srv.mount"), "{output}");
        Ok(())
    })
}

#[test]
fn no_memory_controller_hlt_27() -> Result<()> {
    sandbox_fails("no-memory-controller", "cgroup_disable=memory", "memory")
}

#[test]
fn no_user_namespaces_hlt_27() -> Result<()> {
    sandbox_fails("no-user-namespaces", "sysctl.user.max_user_namespaces=0", "namespace")
}

/// The kernel of 2.0.0 is started with an option that no sandbox can be made with; the reason names `what`.
fn sandbox_fails(name: &str, option: &str, what: &str) -> Result<()> {
    let release = Release::new("2.0.0").with_option(option).given_up_at_once();
    scenario(name, |lab| {
        let fallen = gives_up(lab, &release)?;
        fallen.marked_bad("checks");
        fallen.failed(&[("sandbox", "sandbox")]);
        let detail = fallen.update["tries"][0]["failed_checks"][0]["detail"].to_string();
        ensure!(detail.contains(what), "{detail}");
        Ok(())
    })
}

#[test]
fn ralphds_own_sandbox_leaks_the_network_sbx_12() -> Result<()> {
    let release = Release::new("2.0.0").with_ralphd("sandbox-without net-namespace").given_up_at_once();
    scenario("network-leaks", |lab| {
        let fallen: Fallen = gives_up(lab, &release)?;
        fallen.marked_bad("checks");
        fallen.failed(&[("sandbox", "sandbox-wall")]);
        let detail = fallen.update["tries"][0]["failed_checks"][0]["detail"].to_string();
        ensure!(detail.contains("net-namespace") && detail.contains("network-interfaces"), "{detail}");
        Ok(())
    })
}
