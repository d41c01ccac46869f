//! One netns that cannot be programmed, among others that can.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use crate::chaos::ENFORCE;
use crate::harness::{Container, DockerHost, IDLE, Lab, Seawall, eventually};

const LIMIT: Duration = Duration::from_secs(20);

/// Holds `table inet seawall` of a netns as its owner (`NFT_TABLE_F_OWNER`): nobody else may change it until this is dropped.
struct Claim(#[expect(dead_code, reason = "held open")] OwnedFd);

impl Claim {
    fn of(container: &Container) -> Self {
        let fd = container.netns().run(|| {
            let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
            let netfilter = SockProtocol::NetlinkNetFilter;
            let fd = socket(AddressFamily::Netlink, kind, flags, netfilter).unwrap();
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
            fd
        });
        // NFTA_TABLE_NAME, and NFTA_TABLE_FLAGS with NFT_TABLE_F_OWNER, in network byte order.
        let name = [&12u16.to_ne_bytes()[..], &1u16.to_ne_bytes(), b"seawall\0"].concat();
        let owner = [&8u16.to_ne_bytes()[..], &2u16.to_ne_bytes(), &2u32.to_be_bytes()].concat();
        let (request, ack, create) = (0x1, 0x4, 0x400);
        // NFNL_MSG_BATCH_BEGIN and _END (0x10, 0x11) name the subsystem nf_tables (10); NFT_MSG_NEWTABLE is 0 in it.
        let batch = [
            message(0x10, request, 0, 10, &[]),
            message(10 << 8, request | ack | create, 1, 0, &[name, owner].concat()),
            message(0x11, request, 0, 10, &[]),
        ];
        send(fd.as_raw_fd(), &batch.concat(), MsgFlags::empty()).unwrap();
        let mut answer = [0; 1024];
        recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).unwrap();
        assert_eq!(answer[16..20], [0; 4], "the kernel did not give the table");
        Self(fd)
    }
}

/// One netlink message with a `struct nfgenmsg` (`linux/netfilter/nfnetlink.h`).
fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = (20 + attributes.len()) as u32;
    let sequence = u32::from(kind);
    let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
    let family = if family == 0 { [0, 0] } else { [family, 0] };
    [&header, &sequence.to_ne_bytes()[..], &[0; 4], &family, &resource.to_be_bytes(), attributes]
        .concat()
}

/// The waits the log tells for a workload's retries, in milliseconds.
fn waits(seawall: &Seawall, name: &str) -> Vec<u64> {
    let wait = |line: &str| line.split("retry_ms=").nth(1)?.split_whitespace().next()?.parse().ok();
    let errors = seawall.log_at("ERROR");
    errors.iter().filter(|line| line.contains(name)).filter_map(|line| wait(line)).collect()
}

#[test]
fn a_netns_that_cannot_be_programmed_stops_no_other_and_heals() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let broken = host.run(&[&["--name", "broken", "--network", "lab"], &IDLE[..]].concat());
    let claim = Claim::of(&broken);
    // It says that it is ready all the same: everything was tried.
    let mut seawall = Seawall::start(&host, ENFORCE);
    lab.assert_verdicts(&host, "beside a broken one");
    let shown = seawall.await_workload("broken", "unprotected", |workload| {
        workload.coverage.starts_with("unprotected") && workload.coverage.contains("own")
    });
    println!("{}", shown.coverage);

    let waits = eventually("three retries", LIMIT, || {
        Some(waits(&seawall, "broken")).filter(|waits| waits.len() >= 4)
    });
    println!("retried after {waits:?} ms");
    assert!(waits.windows(2).all(|pair| pair[1] >= 2 * pair[0]), "{waits:?}");
    // Others come and are programmed meanwhile, at once.
    let late = host.run(&[&["--name", "late", "--network", "lab"], &IDLE[..]].concat());
    seawall.await_workload("late", "programmed", |workload| {
        workload.pid == Some(late.pid) && !workload.coverage.starts_with("unprotected")
    });
    // A daemon that starts beside a broken one becomes ready too.
    seawall.stop();
    seawall.run();
    assert!(seawall.workload("broken").unwrap().coverage.starts_with("unprotected"));

    drop(claim);
    seawall.await_workload("broken", "healed", |workload| {
        !workload.coverage.starts_with("unprotected")
    });
    let others = seawall.log_at("ERROR").into_iter().filter(|line| !line.contains("broken"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<String>::new());
}
