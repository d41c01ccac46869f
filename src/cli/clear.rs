//! `seawall clear`: takes everything of ours out of every network namespace. Always works (security model 9).

use super::{CommandError, Exit, Global, Output, output};
use crate::api::Client;
use crate::api::client::ClientError;
use crate::nft::netns::all_on_host;
use crate::reconcile::{Cleared, Kernel};

pub(super) async fn clear(global: &Global) -> Result<Exit, CommandError> {
    let kernel = Kernel::start()?;
    let found = all_on_host()?;
    if found.is_empty() && !nix::unistd::geteuid().is_root() {
        return Err(CommandError::System(anyhow::anyhow!(
            "no permission to look into network namespaces; run seawall as root"
        )));
    }
    // A daemon owns its tables: nobody else can remove them while it lives.
    let (mut cleared, mut failed, had_daemon) = match Client::new(&global.socket).clear().await {
        Ok(Cleared { removed, errors }) => (removed, errors, true),
        Err(ClientError::NotRunning(_)) => (0, Vec::new(), false),
        Err(error) => (0, vec![error.to_string()], false),
    };
    for netns in &found {
        match kernel.clear(netns) {
            Ok(true) => cleared += 1,
            Ok(false) => {}
            Err(failure) if failure.is_gone() => {}
            Err(failure) => failed.push(failure.chain()),
        }
    }
    match global.output {
        Output::Json => output::json(&serde_json::json!({
            "network_namespaces": found.len(), "cleared": cleared, "errors": failed,
            "daemon_ended": had_daemon,
        }))?,
        Output::Human => output::print(&format!(
            "removed table inet seawall from {cleared} of {} network namespaces",
            found.len()
        )),
    }
    if had_daemon {
        eprintln!("seawall: the daemon has ended; it protects nothing until it is started again");
    }
    if failed.is_empty() {
        return Ok(Exit::Done);
    }
    // Often it is the same for all.
    let mut reasons = std::collections::BTreeMap::<&str, usize>::new();
    for error in &failed {
        *reasons.entry(error).or_default() += 1;
    }
    let told = reasons.into_iter().map(|(reason, count)| match count {
        1 => reason.to_owned(),
        _ => format!("{count} times: {reason}"),
    });
    let told = told.collect::<Vec<_>>().join("; ");
    Err(CommandError::System(anyhow::anyhow!("not everything is removed: {told}")))
}
