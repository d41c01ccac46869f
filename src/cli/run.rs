//! `seawall run`: the daemon.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing_subscriber::EnvFilter;

use super::settings::Keeper;
use super::{CommandError, Exit, Global, facts, load};
use crate::api::{Asked, server};
use crate::observe::Observer;
use crate::reconcile::engine::RESYNC;
use crate::reconcile::{End, Engine, Kernel, Request, Rules, feed};
use crate::runtime::dockerd;

/// How long answers that are under way may hold up the end.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The same for what was seen and is not on disk yet.
const LAST_WRITES: Duration = Duration::from_secs(4);

/// How long systemd waits, before it starts what comes after the daemon, for Docker to tell what runs.
const ANSWERS: Duration = Duration::from_secs(60);

/// The same where no dockerd runs.
const ABSENCE: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  seawall run --config ./seawall.toml --socket ./seawall.sock   a second, private instance")]
pub(super) struct RunArgs {
    /// How often every container is compared with the kernel's own state, and repaired where they differ.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = RESYNC.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    resync: u64,
}

/// Logs to stderr; the daemon from `info` on, other commands from `warn` on.
pub(super) fn start_logging(verbose: u8, is_daemon: bool) {
    let level = match (verbose, is_daemon) {
        (0, false) => "warn",
        (0, true) | (1, false) => "info",
        (1, true) => "debug",
        _ => "trace",
    };
    // The libraries below say more than helps.
    let default = if verbose > 2 { level.to_owned() } else { format!("warn,seawall={level}") };
    let filter = EnvFilter::try_from_env("SEAWALL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let wants_colour =
        is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // systemd's journal has its own clock.
    let result = if std::env::var_os("JOURNAL_STREAM").is_some() || !is_daemon {
        logger.without_time().with_ansi(wants_colour).try_init()
    } else {
        logger.with_ansi(wants_colour).try_init()
    };
    // Only a second call could fail, and then logging works already.
    drop(result);
}

/// Some eight descriptors are held for each container, and the usual soft limit is 1024. Programs that use `select(2)` are why it
/// is so low (`getrlimit(2)`); this is none of them, and it starts none.
fn allow_all_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

pub(super) async fn run(global: &Global, args: &RunArgs) -> Result<Exit, CommandError> {
    start_logging(global.verbose, true);
    if !nix::unistd::geteuid().is_root() {
        return Err(CommandError::System(anyhow::anyhow!(
            "no permission: seawall enters network namespaces and changes nftables; run it as root"
        )));
    }
    allow_all_descriptors();
    let loaded = load(global)?;
    std::fs::create_dir_all(&global.state_dir)?;
    let listener = server::bind(&global.socket).await.map_err(|error| {
        let context = format!("cannot listen on {}", global.socket.display());
        CommandError::System(anyhow::Error::new(error).context(context))
    })?;
    let (observations, sources) = facts::watch(&loaded)?;
    let kernel = Kernel::start()?.with_ownership(loaded.config.ownership);
    let mut engine = Engine::new(kernel, Rules::from(&loaded), sources);
    engine.set_foreign(loaded.config.foreign);
    engine.set_resync(Duration::from_secs(args.resync));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        mode = %loaded.config.settings.mode,
        models = loaded.catalogue.models.len(),
        "seawall runs"
    );
    let (requests, received) = mpsc::channel(16);
    let (settings, settings_asked) = mpsc::channel(16);
    let (queries, queried) = mpsc::channel(64);
    let (stop, stopped) = watch::channel(false);
    let (outlet, inlet) = feed();
    engine.set_outlet(outlet);
    let observer = Observer::default();
    let sequence = observer.sequence();
    let mut observing = tokio::spawn(observer.run(
        global.state_dir.clone(),
        loaded.config.events.clone(),
        inlet,
        queried,
        wait(stopped.clone()),
    ));
    let keeper = Keeper {
        config: global.config.clone(),
        state_dir: global.state_dir.clone(),
        started_with: loaded.config.clone(),
        had_file: global.config.exists(),
        requests: requests.clone(),
        queries: queries.clone(),
    };
    tokio::spawn(keeper.run(settings_asked)?);
    let docker = facts::docker(&loaded, BTreeSet::new())?.host().to_owned();
    tokio::spawn(tell_systemd(requests.clone(), docker));
    tokio::spawn(feed_watchdog(requests.clone()));
    let server_stop = wait(stopped.clone());
    let asked = Asked { requests, settings, queries, sequence };
    if let Some(listen) = loaded.config.metrics.listen {
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(|error| {
            let context = format!("cannot listen on {listen} for metrics");
            CommandError::System(anyhow::Error::new(error).context(context))
        })?;
        tokio::spawn(server::serve_metrics(listener, asked.clone()));
    }
    let mut serving = tokio::spawn(server::serve(listener, asked, server_stop));
    let mut engine = tokio::spawn(engine.run(observations, received, wait(stopped)));
    let result = tokio::select! {
        signal = termination() => { tracing::info!(signal = signal?, "stopping; what is in force stays"); Ok(()) }
        ended = &mut engine => match ended {
            Ok(End::Cleared) => {
                tracing::warn!("every table is taken out; nothing is protected until the next start");
                Ok(())
            }
            ended => Err(anyhow::anyhow!("the reconcile loop ended: {ended:?}")),
        },
        ended = &mut serving => Err(anyhow::anyhow!("the control socket ended: {ended:?}")),
    };
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    let _ = stop.send(true);
    // Whoever asked for the end is answered first.
    if !serving.is_finished() {
        drop(tokio::time::timeout(LAST_ANSWERS, &mut serving).await);
    }
    // What was seen is written.
    drop(tokio::time::timeout(LAST_WRITES, &mut observing).await);
    drop(std::fs::remove_file(&global.socket));
    result.map(|()| Exit::Done).map_err(CommandError::System)
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and everything with it.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

/// Waits for SIGTERM or SIGINT.
async fn termination() -> Result<&'static str, CommandError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Both arms are cancel-safe.
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// Ready means: everything that runs has been programmed once.
///
/// Where Docker waits for that before it starts, nobody can wait for Docker: systemd listens on Docker's socket in its stead,
/// so that questions are taken and not answered. Without a dockerd there is little that runs, and it is not waited for long.
async fn tell_systemd(requests: mpsc::Sender<Request>, docker: String) {
    let found = tokio::task::spawn_blocking(move || dockerd::find(&docker, None)).await;
    let patience = if matches!(found, Ok(Some(_))) { ANSWERS } else { ABSENCE };
    let (reply, settled) = oneshot::channel();
    if requests.send(Request::Settled(reply)).await.is_err() {
        return;
    }
    match tokio::time::timeout(patience, settled).await {
        Ok(Ok(())) => tracing::info!("everything that runs is programmed"),
        Ok(Err(_)) => return,
        Err(_) => tracing::warn!("ready, but not everything that runs is known yet"),
    }
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
}

/// Tells systemd that the daemon lives (`WatchdogSec=`), as often as the reconcile loop itself says so.
async fn feed_watchdog(requests: mpsc::Sender<Request>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut due = tokio::time::interval(limit / 3);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let (reply, alive) = oneshot::channel();
        if requests.send(Request::Alive(reply)).await.is_err() || alive.await.is_err() {
            return;
        }
        drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
    }
}
