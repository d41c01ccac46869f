//! Owns trying the kernel: real rulesets, brought into force by the product's own code in a scratch netns, and real packets.
//!
//! The netns is that of a process of its own, `seawall scratch-netns`, which ends when its standard input does: whatever
//! becomes of this one, nothing stays.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

use crate::compile::guard::Terms;
use crate::compile::{Options, Ruleset, compile};
use crate::config::Ownership;
use crate::input::Text;
use crate::metadata::{Inventory, NetworkMode, Runtime, Workload, WorkloadId};
use crate::model::Helper;
use crate::nft::listen::{Heard, Listeners, hear};
use crate::nft::scratch::{self, OWN, PEER};
use crate::nft::{Netns, TableState};
use crate::policy::{Action, Direction, Mode, Peer, Policy, Provenance, Statement, Traffic};
use crate::reconcile::{Kernel, Target, Wanted};

/// The subcommand of the process that holds the netns.
pub(in crate::cli) const HOLDER: &str = "scratch-netns";
/// What it says when the netns is there.
const READY: &str = "ready";
/// A port that is allowed, and one that is not.
const ALLOWED: u16 = 9;
const DENIED: u16 = 10;
/// How long the kernel may take to tell of a packet that was sent.
const TOLD: Duration = Duration::from_millis(200);

/// What was seen. Each is `Ok` when it works, else why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    /// A ruleset was taken, read back the same, and stopped a packet.
    pub(super) tables: Result<(), String>,
    /// Whose the table was then, as another socket read it.
    pub(super) state: Option<TableState>,
    /// Ranges of addresses and ports.
    pub(super) intervals: Result<(), String>,
    /// The guard at the links.
    pub(super) guard: Result<(), String>,
    /// The links' queues.
    pub(super) xdp: Result<(), String>,
    /// A denied packet was told of.
    pub(super) nflog: Result<(), String>,
    /// A connection was told of.
    pub(super) conntrack: Result<(), String>,
    /// Bytes of connections can be counted.
    pub(super) accounting: Result<(), String>,
    /// The helpers that are not there.
    pub(super) helpers: Vec<Helper>,
}

/// The process that holds the scratch netns, while this lives.
struct Holder {
    child: Child,
    /// Closing it ends the process.
    stdin: Option<ChildStdin>,
}

impl Holder {
    fn start() -> Result<Self, String> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(HOLDER).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let holder = Self { child, stdin };
        let mut said = String::new();
        let stdout = stdout.ok_or("it says nothing")?;
        BufReader::new(stdout).read_line(&mut said).map_err(|error| error.to_string())?;
        match said.trim() {
            READY => Ok(holder),
            "" => Err("the process that was to hold it ended".to_owned()),
            why => Err(Text::new(why).to_string()),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself; there is nobody to tell if it cannot be waited for.
        let _ = self.child.wait();
    }
}

/// Be the process that holds a scratch netns, until standard input ends.
pub(in crate::cli) fn hold() -> ExitCode {
    let made = scratch::leave()
        .map_err(|error| format!("cannot make a network namespace: {error}"))
        .and_then(|()| {
            scratch::furnish().map_err(|error| format!("cannot make a veth pair in it: {error}"))
        });
    match made {
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
        Ok(()) => {
            println!("{READY}");
            // However it ends, nobody needs the netns any more.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            ExitCode::SUCCESS
        }
    }
}

/// Tries everything. `Err`: there is no scratch netns, and why. Blocking, about a tenth of a second.
pub(super) fn run() -> Result<Trial, String> {
    // What the product warns of is what is found here.
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
        let holder = Holder::start()?;
        let kernel = Kernel::start().map_err(|error| error.to_string())?;
        let kernel = kernel.with_ownership(Ownership::Auto);
        Ok(try_all(&kernel, holder.child.id()))
    })
}

fn try_all(kernel: &Kernel, pid: u32) -> Trial {
    let mut target = Target {
        owner: WorkloadId::new("scratch"),
        pid,
        process: None,
        wanted: Wanted::default(),
        is_fresh: true,
        known: None,
        socket: None,
        watching: None,
    };
    let exact = statement(&format!("{PEER}/32"), &format!("{ALLOWED}/udp"), None);
    let ranges = [
        statement("198.18.0.0/24", "8000-8999/tcp", None),
        statement("2001:db8::/64", "8000-8999/tcp", None),
    ];
    let mut statements: Vec<Statement> = exact.into_iter().collect();
    let applied = bring(kernel, &mut target, &statements);
    let mut trial = Trial {
        tables: applied.as_ref().map(drop).map_err(Clone::clone),
        state: None,
        intervals: Err("no ruleset was taken".to_owned()),
        guard: Err("no ruleset was taken".to_owned()),
        xdp: Err("no ruleset was taken".to_owned()),
        nflog: Err("no ruleset was taken".to_owned()),
        conntrack: Err("no ruleset was taken".to_owned()),
        accounting: Err("no ruleset was taken".to_owned()),
        helpers: Vec::new(),
    };
    let Ok(Brought { unguarded, unseated, .. }) = applied else { return trial };
    trial.guard = unguarded.map_or(Ok(()), Err);
    trial.xdp = unseated.map_or(Ok(()), Err);
    trial.state = kernel.read(pid).ok().and_then(|(dump, _)| dump.table);
    try_packets(kernel, pid, &mut trial);
    let with_ranges: Vec<Statement> =
        statements.iter().chain(ranges.iter().flatten()).cloned().collect();
    trial.intervals = bring(kernel, &mut target, &with_ranges).map(drop);
    if trial.intervals.is_ok() {
        statements = with_ranges;
    }
    for helper in Helper::ALL {
        let proto = helper.protocols().first().map_or("tcp", |proto| proto.as_str());
        let helped = statement(&format!("{PEER}/32"), &format!("21/{proto}"), Some(helper));
        let wanted: Vec<Statement> = statements.iter().chain(&helped).cloned().collect();
        match bring(kernel, &mut target, &wanted) {
            Ok(Brought { has_helpers: true, .. }) => {}
            _ => trial.helpers.push(helper),
        }
    }
    trial
}

/// What came of a ruleset that was taken.
struct Brought {
    unguarded: Option<String>,
    unseated: Option<String>,
    has_helpers: bool,
}

/// Brings a policy of these statements into force, and reads it back.
fn bring(
    kernel: &Kernel,
    target: &mut Target,
    statements: &[Statement],
) -> Result<Brought, String> {
    let terms = Terms { guards: true, denies: true, ..Terms::default() };
    target.wanted = Wanted { table: ruleset(statements).map(Arc::new), guard: terms };
    // Each is planned from what the kernel holds.
    target.known = None;
    let applied = kernel.apply(target).map_err(|failure| failure.chain())?;
    let (dump, _) = kernel.read(target.pid).map_err(|failure| failure.chain())?;
    let known = &applied.known;
    if dump.ruleset != known.ruleset || dump.guard != known.guard {
        return Err("the kernel holds something else than was written".to_owned());
    }
    let has_helpers = dump.ruleset.is_some_and(|ruleset| !ruleset.helpers.is_empty());
    Ok(Brought { unguarded: applied.unguarded, unseated: applied.unseated, has_helpers })
}

fn statement(network: &str, ports: &str, helper: Option<Helper>) -> Option<Statement> {
    let ports = ports.parse().ok()?;
    let traffic = match helper {
        Some(helper) => Traffic::Control(ports, helper),
        None => Traffic::Ports(ports),
    };
    Some(Statement {
        action: Action::Allow,
        direction: Direction::Egress,
        peer: Peer::Cidr(network.parse().ok()?),
        traffic: [traffic].into(),
        provenance: Provenance::Baseline,
    })
}

/// What the product compiles of these statements, in enforce.
fn ruleset(statements: &[Statement]) -> Option<Ruleset> {
    let mut workload =
        Workload::new(WorkloadId::new("scratch"), Text::new("scratch"), Runtime::Docker);
    workload.network_mode = NetworkMode::Own;
    workload.capabilities.net_raw = true;
    let policy = Policy {
        workload: workload.id.clone(),
        label: Text::new("scratch"),
        mode: Mode::Enforce,
        mode_from: Provenance::Setting { key: "mode" },
        statements: statements.to_vec(),
        routes: false,
    };
    let inventory: Inventory = [workload].into_iter().collect();
    compile(&[&policy], &inventory, &Options::default())
}

/// Sends a packet that is allowed and one that is not, and listens to what the kernel tells of them.
fn try_packets(kernel: &Kernel, pid: u32, trial: &mut Trial) {
    let netns = match Netns::of_pid(pid) {
        Ok(netns) => netns,
        Err(error) => return trial.tables = Err(error.to_string()),
    };
    let listeners = kernel.listen(&netns, None).map_err(|failure| failure.chain());
    let sent = inside(pid, || {
        send_to(DENIED)?;
        std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_acct")
    });
    let denied =
        kernel.read(pid).ok().and_then(|(dump, _)| dump.counts.get("deny_egress").copied());
    if denied.is_none_or(|counts| counts.packets == 0) {
        trial.tables = Err("a packet that no statement allows was not denied".to_owned());
    }
    trial.accounting = match sent {
        Ok(value) if value.trim() == "1" => Ok(()),
        Ok(_) => Err("net.netfilter.nf_conntrack_acct cannot be set".to_owned()),
        Err(error) => Err(format!("net.netfilter.nf_conntrack_acct cannot be read: {error}")),
    };
    match listeners {
        Err(error) => {
            trial.nflog = Err(error.clone());
            trial.conntrack = Err(error);
        }
        Ok(Listeners { denials, connections, .. }) => {
            trial.nflog = denials.and_then(|denials| told_in_time(pid, &denials, DENIED));
            trial.conntrack = told_in_time(pid, &connections, ALLOWED);
        }
    }
}

/// Runs something on a thread that enters the netns and does not come back.
fn inside<T: Send + 'static>(
    pid: u32,
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let netns = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    let thread = std::thread::spawn(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET)?;
        run()
    });
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended")))
}

/// Sends to a port behind the link, in the calling thread's netns.
fn send_to(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind((OWN[0], 0))?;
    // A denied one may be refused at once.
    let _ = socket.send_to(b"seawall doctor", (IpAddr::V4(PEER), port));
    Ok(())
}

/// Sends, and waits until the kernel tells of it on a socket.
fn told_in_time(pid: u32, socket: &OwnedFd, port: u16) -> Result<(), String> {
    inside(pid, move || send_to(port)).map_err(|error| error.to_string())?;
    told(socket)
}

/// Waits until the kernel tells something on a socket.
fn told(socket: &OwnedFd) -> Result<(), String> {
    let patience = PollTimeout::try_from(TOLD).unwrap_or(PollTimeout::MAX);
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, patience).map_err(|error| error.to_string())?;
    match hear(socket, &mut vec![0; 64 << 10]) {
        Ok(Heard::Bytes(_) | Heard::Lost) => Ok(()),
        Ok(Heard::Nothing) => Err("the kernel told nothing".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
