//! Owns the command line: what commands there are, what they print, and the exit codes.
//!
//! 0: done, no difference. 1: there is a difference, or a denial. 2: usage or configuration error. 3: the system refused.

mod apply;
mod check;
mod choose;
mod clear;
mod denials;
mod diff;
mod doctor;
mod events;
mod explain;
mod facts;
mod flows;
mod learn;
mod manual;
mod mode;
mod observed;
mod output;
mod plan;
mod policy;
mod proposal;
mod resolve;
mod run;
mod runtime;
mod settings;
mod status;
mod suggest;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::api::client::ClientError;
use crate::config::{DEFAULT_PATH, Files, Loaded, STATE_DIR};
use crate::input::Diagnostics;
use crate::model::Catalogue;
use crate::runtime::{Place, Wrapper, wrapper};

/// A firewall for Docker and containerd hosts that writes its own rules.
///
/// seawall recognises which application each container is, looks up what that application is known to do on the
/// network, and denies everything else in the container's own network namespace.
#[derive(Debug, Parser)]
#[command(name = "seawall", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  seawall plan --from compose.yaml           what would be allowed, without root and without Docker
  seawall resolve registry:5000/team/mysql   which application an image is, and why
  seawall test shop/web shop/db:5432/tcp     whether a connection is allowed, and what decides it
  seawall run                                the daemon; in observe until the configuration says enforce

Exit codes: 0 done, no difference; 1 a difference or a denial; 2 usage or configuration error;
3 the system refused (no permission, no Docker).";

/// Options of every command.
#[derive(Args, Debug)]
struct Global {
    /// Configuration file; models.d/ and policy.d/ lie beside it.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH, env = "SEAWALL_CONFIG")]
    config: PathBuf,
    /// Control socket of the daemon.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/run/seawall/seawall.sock",
        env = "SEAWALL_SOCKET"
    )]
    socket: PathBuf,
    /// Folder for the daemon's state.
    #[arg(long, global = true, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// For people, or as JSON for programs.
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// Say more on stderr; repeat for still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Aligned text.
    Human,
    /// JSON with a stable schema.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    Run(run::RunArgs),
    /// Validate configuration, models and policy files; report all problems at once
    Check,
    /// Say which application an image or a container is, with all evidence
    Resolve(resolve::ResolveArgs),
    /// Print the declarative policy: who may talk to whom, and who says so
    Policy(facts::FactsArgs),
    /// Print the nftables ruleset that would be applied (dry run)
    Plan(plan::PlanArgs),
    /// Show how what the kernel holds differs from what is wanted
    Diff(facts::TargetArgs),
    /// Bring every container to what is wanted, once; or put a proposal into force
    Apply(apply::ApplyArgs),
    /// Show workloads, models, modes, coverage and counters of the running daemon
    Status(status::StatusArgs),
    /// Say whether a connection is allowed, and which statement decides it
    Test(explain::TestArgs),
    /// Show what happened: denials, changes, tampering; or follow it
    Events(events::EventsArgs),
    /// Show the connections that were made, and what the policy says of them
    Flows(flows::FlowsArgs),
    /// Say why something was denied, and what would allow it
    Explain(denials::ExplainArgs),
    /// Set a mode (observe, enforce, off) at run time, or list those set
    Mode(mode::ModeArgs),
    /// Propose what is missing in the policy for what was seen
    Learn(learn::LearnArgs),
    /// Say what some workloads share and no others have, as selectors
    SuggestGroup(suggest::SuggestArgs),
    /// Take everything of seawall's out of every network namespace
    Clear,
    /// Say what this host lacks of what seawall needs, what that costs, and how to mend it
    Doctor(doctor::DoctorArgs),
    /// Make containers wait for their policy: the OCI runtime wrapper
    #[command(subcommand)]
    Runtime(runtime::RuntimeCommand),
    /// Be the OCI runtime wrapper (called by container engines, through a link called seawall-RUNTIME)
    #[command(hide = true)]
    OciRuntime {
        /// The real runtime.
        #[arg(long, value_name = "PATH", default_value = "runc")]
        runtime: PathBuf,
        /// The runtime's own arguments.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Hold a network namespace to try the kernel in, until standard input ends (called by doctor)
    #[command(hide = true, name = doctor::trial::HOLDER)]
    ScratchNetns,
    /// Have the running daemon read its configuration again
    Reload,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  seawall completions bash > /etc/bash_completion.d/seawall")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command (called when packages are made)
    #[command(hide = true)]
    ManPages {
        /// An existing folder.
        folder: PathBuf,
    },
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done,
    Difference,
}

/// Why a command could not do its work.
#[derive(Debug)]
enum CommandError {
    /// Wrong usage, or a configuration with problems: exit 2.
    Usage(anyhow::Error),
    /// The system refused: exit 3.
    System(anyhow::Error),
}

impl From<Diagnostics> for CommandError {
    fn from(problems: Diagnostics) -> Self {
        Self::Usage(anyhow::Error::new(problems))
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        Self::System(error.into())
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        Self::System(error.into())
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if let Some(program) = arguments.next().filter(|program| Place::is_wrapper(program)) {
        return wrapper::called(&program, arguments.collect());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with 0, mistakes to stderr with 2; clap does both.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    if let Command::OciRuntime { runtime, arguments } = cli.command {
        let Global { config, socket, state_dir, .. } = cli.global;
        let state_dir = Some(state_dir);
        let place = Place { runtime, config, socket, state_dir, former_default: None };
        return Wrapper::new(place, arguments).run();
    }
    // Only this thread is to leave the network namespace, so it must be the only one.
    if let Command::ScratchNetns = cli.command {
        return doctor::trial::hold();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("seawall: cannot start: {error}");
            return ExitCode::from(3);
        }
    };
    let result = runtime.block_on(dispatch(cli));
    // Work on blocking threads that is still under way must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::Difference) => ExitCode::from(1),
        Err(CommandError::Usage(error)) => fail(&error, 2),
        Err(CommandError::System(error)) => fail(&error, 3),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Problems of files stand for themselves, a line each.
    match error.downcast_ref::<Diagnostics>() {
        Some(problems) => eprintln!("{problems}"),
        None => eprintln!("seawall: {error:#}"),
    }
    ExitCode::from(code)
}

async fn dispatch(cli: Cli) -> Result<Exit, CommandError> {
    let global = cli.global;
    if !matches!(cli.command, Command::Run(_)) {
        run::start_logging(global.verbose, false);
    }
    match cli.command {
        Command::Run(args) => run::run(&global, &args).await,
        Command::Check => check::check(&global),
        Command::Resolve(args) => resolve::resolve(&global, args).await,
        Command::Policy(args) => policy::policy(&global, &args).await,
        Command::Plan(args) => plan::plan(&global, &args).await,
        Command::Diff(args) => diff::diff(&global, &args).await,
        Command::Apply(args) => apply::apply(&global, &args).await,
        Command::Status(args) => status::status(&global, &args).await,
        Command::Test(args) => explain::test(&global, &args).await,
        Command::Events(args) => events::events(&global, &args).await,
        Command::Flows(args) => flows::flows(&global, &args).await,
        Command::Explain(args) => denials::explain(&global, &args).await,
        Command::Mode(args) => mode::mode(&global, &args).await,
        Command::Learn(args) => learn::learn(&global, &args).await,
        Command::SuggestGroup(args) => suggest::suggest(&global, &args).await,
        Command::Clear => clear::clear(&global).await,
        Command::Runtime(command) => runtime::runtime(&global, &command).await,
        // Taken before: they need nothing of what was set up since.
        Command::OciRuntime { .. } | Command::ScratchNetns => Ok(Exit::Done),
        Command::Doctor(args) => doctor::doctor(&global, &args).await,
        Command::Reload => match crate::api::Client::new(&global.socket).reload().await {
            Err(ClientError::Refused(why)) => Err(CommandError::Usage(anyhow::anyhow!(
                "the daemon refused the configuration; the last good one stays in force:\n{why}"
            ))),
            answer => {
                answer?;
                output::print("the daemon has read its configuration, and obeys it");
                Ok(Exit::Done)
            }
        },
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "seawall", &mut std::io::stdout());
            Ok(Exit::Done)
        }
        Command::ManPages { folder } => {
            manual::write(Cli::command(), &folder)?;
            Ok(Exit::Done)
        }
    }
}

/// Reads and validates all configuration files.
fn load(global: &Global) -> Result<Loaded, CommandError> {
    Ok(read_files(global)?.load(Catalogue::with_files)?)
}

/// Reads all configuration files.
fn read_files(global: &Global) -> Result<Files, CommandError> {
    let is_default = global.config == Path::new(DEFAULT_PATH);
    if !is_default && !global.config.exists() {
        let path = global.config.display();
        return Err(CommandError::Usage(anyhow::anyhow!(
            "the configuration file {path} does not exist; create it or leave --config out"
        )));
    }
    Ok(Files::read(&global.config).with_modes(&global.state_dir))
}

/// Reads and validates the configuration file, those beside it, and the modes set at run time.
fn load_files(config: &Path, state_dir: &Path) -> Result<Loaded, Diagnostics> {
    Files::read(config).with_modes(state_dir).load(Catalogue::with_files)
}
