//! Kernel layer: `seawall doctor` on a kernel that lacks something: Debian 12's own, Linux 6.1, in a virtual machine
//! (`scripts/old-kernel`), whole and without some of its modules.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use serde_json::Value;

/// What doctor says there of the kernel, without these modules: each check that is not ok, with its result and finding.
#[track_caller]
fn doctor(without: &[&str]) -> Vec<(String, String, String)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/old-kernel");
    let mut command = Command::new(script);
    command.args(without.iter().flat_map(|module| ["--without", module]));
    let output =
        command.args([env!("CARGO_BIN_EXE_seawall"), "doctor", "--json"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    // There is neither Docker nor a daemon.
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = said["checks"].as_array().unwrap();
    let version = checks.iter().find(|check| check["id"] == "kernel.version").unwrap();
    assert!(version["found"].as_str().unwrap().starts_with("Linux 6.1."), "{version}");
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let is_told = |check: &&Value| {
        check["id"].as_str().unwrap().starts_with("kernel.") && check["result"] != "ok"
    };
    let told = checks.iter().filter(is_told);
    told.map(|check| (text(check, "id"), text(check, "result"), text(check, "found"))).collect()
}

/// The names and results alone.
fn results(told: &[(String, String, String)]) -> Vec<(&str, &str)> {
    told.iter().map(|(id, result, _)| (id.as_str(), result.as_str())).collect()
}

#[test]
fn linux_6_1_lacks_tables_that_outlive_their_owner_and_nothing_else() {
    let told = doctor(&[]);
    assert_eq!(results(&told), [("kernel.owner", "warning")], "{told:#?}");
}

#[test]
fn modules_that_are_missing_cost_what_they_are_for() {
    let told = doctor(&["nf_conntrack_ftp", "nf_conntrack_netlink"]);
    let owner = ("kernel.owner", "warning");
    let missing = [owner, ("kernel.conntrack", "warning"), ("kernel.helpers", "warning")];
    assert_eq!(results(&told), missing, "{told:#?}");
    assert_eq!(told[2].2, "no helper for ftp");
}

#[test]
fn a_rule_that_a_kernel_refuses_is_named() {
    let told = doctor(&["nft_reject_inet"]);
    assert_eq!(results(&told)[0], ("kernel.tables", "missing"), "{told:#?}");
    assert!(told[0].2.contains("refused to add rule deny_egress"), "{told:#?}");
    assert!(told[1..].iter().all(|(_, result, _)| result == "skipped"), "{told:#?}");
}
