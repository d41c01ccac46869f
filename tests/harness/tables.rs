//! Owns looking at nftables in a netns, and changing it by hand.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use seawall::compile::{Generation, Ruleset};
use seawall::nft::netns::Entrance;

use super::container::Container;
use super::docker_host::succeed;
use super::netns::Netns;

/// The table seawall has in a netns, as the kernel holds it. Its generation counts revocations and is left out.
#[track_caller]
pub(crate) fn held(netns: &Netns) -> Option<Ruleset> {
    let netns = seawall::nft::Netns::open(netns.path()).expect("the netns is there");
    let entrance = Entrance::start().expect("a thread can be started");
    let mut table = entrance.open_table(&netns).expect("entering a netns needs root");
    let dump = table.dump().expect("tables can be read");
    dump.ruleset.map(|ruleset| ruleset.at_generation(Generation::FIRST))
}

/// Runs nft commands in a netns; gives what they print.
#[track_caller]
pub(crate) fn nft(netns: &Netns, commands: &str) -> String {
    let output = run(netns, commands);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft `{commands}` failed: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether nft refuses the commands.
#[track_caller]
pub(crate) fn nft_fails(netns: &Netns, commands: &str) -> bool {
    !run(netns, commands).status.success()
}

fn run(netns: &Netns, commands: &str) -> Output {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.path().display())).args(["nft", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut nft = command.spawn().expect("nsenter can be run");
    let mut input = nft.stdin.take().expect("it is piped");
    input.write_all(commands.as_bytes()).expect("nft reads");
    drop(input);
    nft.wait_with_output().expect("nft ends")
}

/// A netns with nothing in it, removed when dropped.
pub(crate) struct EmptyNetns(String);

impl EmptyNetns {
    /// Makes one.
    #[track_caller]
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("swall-e{}-{number}", std::process::id());
        succeed(Command::new("ip").args(["netns", "add", &name]));
        Self(name)
    }

    /// It.
    pub(crate) fn netns(&self) -> Netns {
        Netns::named(&self.0)
    }
}

impl Drop for EmptyNetns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

impl Container {
    /// The table seawall has in it now.
    #[track_caller]
    pub(crate) fn table(&self) -> Option<Ruleset> {
        held(&self.netns())
    }
}
