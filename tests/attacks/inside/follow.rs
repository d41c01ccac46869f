//! Owns what comes after something was changed: packets for a while, so that a repair shows as an end of them; and running
//! the machine's own programs, which the test mounts at /usr.

use std::error::Error;
use std::io::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Outcome;
use crate::packet::{SYN, TCP, UDP, ether_of, frame, ip, tcp, udp};
use crate::target::{Attempt, Mac};
use crate::wire::{PacketSocket, all, send_ip, send_plain};

/// How long packets follow.
const WHILE: Duration = Duration::from_millis(1500);
/// Short beside any repair.
const PAUSE: Duration = Duration::from_micros(200);

/// Runs nft with commands on its input.
pub(crate) fn nft(commands: &str) -> Outcome {
    let mut child = Command::new("/usr/sbin/nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    told(&child.wait_with_output()?)
}

/// Runs a program; its complaint is the error.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Outcome {
    told(&Command::new(program).args(arguments).output()?)
}

/// `ip` of iproute2.
pub(crate) fn ip_tool(arguments: &str) -> Outcome {
    run("/usr/bin/ip", &arguments.split_whitespace().collect::<Vec<_>>())
}

/// `tc` of iproute2.
pub(crate) fn tc(arguments: &str) -> Outcome {
    run("/usr/sbin/tc", &arguments.split_whitespace().collect::<Vec<_>>())
}

fn told(output: &std::process::Output) -> Outcome {
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(error.lines().next().unwrap_or_default().to_owned().into())
}

/// Whether it failed for want of capabilities.
pub(crate) fn is_refused(outcome: &Outcome) -> bool {
    outcome.as_ref().is_err_and(|error| error.to_string().contains("Operation not permitted"))
}

/// Changes something while packets are sent without a pause, so that none of the time until a repair is missed; and for a
/// while afterwards, unless it was refused. What the change came to is the outcome.
pub(crate) fn beside(
    change: impl FnOnce() -> Outcome,
    send: impl Fn() -> Result<(), Box<dyn Error>> + Sync,
) -> Outcome {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // What becomes of them is seen where they arrive.
                let _ = send();
                std::thread::sleep(PAUSE);
            }
        });
        let changed = change();
        if !is_refused(&changed) {
            std::thread::sleep(WHILE);
        }
        ended.store(true, Ordering::Relaxed);
        changed
    })
}

/// Ordinary packets: to a peer, the host and the world.
pub(crate) fn plain(attempt: &Attempt<'_>) -> Outcome {
    Ok(all(attempt.away().map(|(to, _)| send_plain(attempt, to, 9)))?)
}

/// Ordinary packets from another address than the one Docker gave.
pub(crate) fn from(attempt: &Attempt<'_>, from: IpAddr) -> Outcome {
    let socket = UdpSocket::bind((from, attempt.port()))?;
    let send = |(to, _): (IpAddr, Mac)| socket.send_to(&attempt.payload(), (to, 9)).map(drop);
    Ok(all(attempt.away().map(send))?)
}

/// What the policy allows; where it goes is another's business.
pub(crate) fn to_friend(attempt: &Attempt<'_>) -> Outcome {
    let (own, friend) = (attempt.own(), attempt.at("friend"));
    let segment = tcp((own, friend), (attempt.port(), 5432), SYN, &attempt.payload());
    Ok(send_ip(friend, &ip(own, friend, TCP, &segment))?)
}

/// Frames by a packet socket on another device, from an Ethernet address.
pub(crate) fn by_device(attempt: &Attempt<'_>, socket: &PacketSocket, from: Mac) -> Outcome {
    let send = |(to, to_mac): (IpAddr, Mac)| {
        let ends = (attempt.own(), to);
        let packet = ip(ends.0, to, UDP, &udp(ends, (attempt.port(), 9), &attempt.payload()));
        socket.send(to_mac, ether_of(to), &frame(to_mac, from, ether_of(to), &packet))
    };
    Ok(all(attempt.away().map(send))?)
}

/// The Ethernet address of a device.
pub(crate) fn mac_of(device: &str) -> Result<Mac, Box<dyn Error>> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/address"))?;
    let mut bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap_or(0));
    Ok(std::array::from_fn(|_| bytes.next().unwrap_or(0)))
}
