//! `seawall clear`: takes everything of ours out of every network namespace. Always works (security model 9).

use super::{CommandError, Exit, Global, Output, output};
use crate::nft::netns::all_on_host;
use crate::reconcile::Kernel;

pub(super) async fn clear(global: &Global) -> Result<Exit, CommandError> {
    let kernel = Kernel::start()?;
    let found = all_on_host()?;
    if found.is_empty() && !nix::unistd::geteuid().is_root() {
        return Err(CommandError::System(anyhow::anyhow!(
            "no permission to look into network namespaces; run seawall as root"
        )));
    }
    let (mut cleared, mut failed) = (0_usize, Vec::new());
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
        }))?,
        Output::Human => output::print(&format!(
            "removed table inet seawall from {cleared} of {} network namespaces",
            found.len()
        )),
    }
    if crate::api::Client::new(&global.socket).status().await.is_ok() {
        eprintln!(
            "seawall: a daemon is running and will put the tables back within a minute; \
             stop it first: systemctl stop seawall"
        );
    }
    match failed.first() {
        None => Ok(Exit::Done),
        Some(error) => Err(CommandError::System(anyhow::anyhow!("{error}"))),
    }
}
