//! Kernel layer: FTP between two namespaces. What is agreed on over an allowed control connection is let through at both ends,
//! and nothing else is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/frames.rs"]
mod frames;
#[path = "kernel/netns.rs"]
mod netns;
#[path = "ftp/transfer.rs"]
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netns::{TestNetns, inside_of};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use seawall::compile::{Options, compile};
use seawall::input::Text;
use seawall::metadata::{Attachment, Inventory, NetworkKey, Runtime, Workload, WorkloadId};
use seawall::nft::conntrack_entries::{ControlWatch, read_events};
use seawall::nft::netns::Entrance;
use seawall::nft::{KernelTable, Netns, plan};
use seawall::policy::{Action, Direction, Mode, Peer, Policy, Provenance, Statement, Traffic};
use transfer::Transfer;

const CLIENT: [&str; 2] = ["10.55.0.2", "fd55::2"];
const SERVER: [&str; 2] = ["10.55.0.3", "fd55::3"];
const THIRD: [&str; 2] = ["10.55.0.4", "fd55::4"];
/// Nobody allows it.
const HIGH_PORT: u16 = 40_077;
const SMALL: &str = "100000";
const MODES: [&str; 2] = ["passive", "active"];
const LIMIT: Duration = Duration::from_millis(800);

/// A client, a server and somebody else, on one network.
struct Lab {
    client: TestNetns,
    server: TestNetns,
    third: TestNetns,
    _switch: TestNetns,
    inventory: Inventory,
    entrance: Entrance,
}

impl Lab {
    fn new() -> Self {
        let [client, server, third, switch] = std::array::from_fn(|_| TestNetns::new());
        switch.ip(&["link", "add", "br0", "type", "bridge"]);
        switch.ip(&["link", "set", "br0", "up"]);
        for (netns, port, own) in
            [(&client, "p0", CLIENT), (&server, "p1", SERVER), (&third, "p2", THIRD)]
        {
            let link = ["link", "add", "eth0", "type", "veth", "peer", "name", port, "netns"];
            netns.ip(&[link.as_slice(), &[&switch.name]].concat());
            netns.ip(&["addr", "add", &format!("{}/24", own[0]), "dev", "eth0"]);
            netns.ip(&["addr", "add", &format!("{}/64", own[1]), "dev", "eth0", "nodad"]);
            netns.ip(&["link", "set", "eth0", "up"]);
            switch.ip(&["link", "set", port, "master", "br0", "up"]);
        }
        let workload = |id, own| {
            let mut workload = Workload::new(WorkloadId::new(id), Text::new(id), Runtime::Docker);
            let attachment = Attachment {
                name: Text::new("net"),
                driver: None,
                is_default_bridge: false,
                addresses: addresses(own).into(),
                gateways: BTreeSet::new(),
                aliases: BTreeSet::new(),
            };
            workload.networks = BTreeMap::from([(NetworkKey(Text::new("net")), attachment)]);
            workload
        };
        let workloads = [("client", CLIENT), ("server", SERVER), ("third", THIRD)];
        Self {
            client,
            server,
            third,
            _switch: switch,
            inventory: workloads.map(|(id, own)| workload(id, own)).into_iter().collect(),
            entrance: Entrance::start().unwrap(),
        }
    }

    /// Allows FTP, by these ports, and nothing else at both ends. Returns the sockets it was done with.
    fn enforce(&self, ports: &str) -> [KernelTable; 2] {
        let mut tables = [&self.client, &self.server]
            .map(|netns| self.entrance.open_table(&Netns::open(&netns.path()).unwrap()).unwrap());
        self.enforce_with(&mut tables, &[ports]);
        tables
    }

    fn enforce_with(&self, tables: &mut [KernelTable; 2], traffic: &[&str]) {
        let ends =
            [("client", Direction::Egress, "server"), ("server", Direction::Ingress, "client")];
        for (table, (own, direction, peer)) in tables.iter_mut().zip(ends) {
            let policy = Policy {
                workload: WorkloadId::new(own),
                label: Text::new(own),
                mode: Mode::Enforce,
                mode_from: Provenance::Setting { key: "mode" },
                statements: vec![Statement {
                    action: Action::Allow,
                    direction,
                    peer: Peer::Workloads {
                        label: Text::new(peer),
                        members: [WorkloadId::new(peer)].into(),
                    },
                    traffic: traffic.iter().map(|text| parse(text)).collect(),
                    provenance: Provenance::Baseline,
                }],
                routes: false,
            };
            let wanted = compile(&[&policy], &self.inventory, &Options::default()).unwrap();
            let before = table.dump().unwrap();
            let transaction = plan(before.ruleset.as_ref(), Some(&wanted));
            table.commit(&transaction, Some(before.generation_id)).unwrap();
            assert_eq!(table.dump().unwrap().ruleset, transaction.target, "it is read back");
        }
    }

    fn serve(&self, arguments: &[&str]) -> Running {
        let mut command = python(&self.server, "server.py");
        command.args(arguments).args(SERVER).stdout(Stdio::piped());
        let mut server = Running(command.spawn().unwrap());
        let mut said = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "is python3-pyftpdlib installed?");
        server
    }

    /// What the client says.
    fn ftp(&self, arguments: &[&str]) -> String {
        let output = python(&self.client, "client.py").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn slow(&self, address: &str, mode: &str) -> Transfer {
        let mut command = python(&self.client, "client.py");
        command.args(["slow", address, mode]);
        Transfer::start(command)
    }
}

fn parse(text: &str) -> Traffic {
    match text.split_once(" with helper ") {
        Some((ports, helper)) => Traffic::Control(ports.parse().unwrap(), helper.parse().unwrap()),
        None => Traffic::Ports(text.parse().unwrap()),
    }
}

fn addresses(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap())
}

fn python(netns: &TestNetns, script: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.path().display())).args([
        "/usr/bin/python3",
        "-W",
        "ignore",
    ]);
    command.arg(format!("{}/tests/ftp/{script}", env!("CARGO_MANIFEST_DIR")));
    command
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Listens on the high port of an address.
fn listen(netns: &TestNetns, address: IpAddr) -> TcpListener {
    let listener = inside_of(netns, move || TcpListener::bind((address, HIGH_PORT)).unwrap());
    listener.set_nonblocking(true).unwrap();
    listener
}

fn reaches(netns: &TestNetns, address: IpAddr) -> bool {
    let to = SocketAddr::new(address, HIGH_PORT);
    inside_of(netns, move || TcpStream::connect_timeout(&to, LIMIT).is_ok())
}

/// Does what the daemon does in one netns, until dropped.
struct Following {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Following {
    fn start(lab: &Lab, netns: &TestNetns) -> Self {
        let netns = Netns::open(&netns.path()).unwrap();
        let ControlWatch { events, mut entries } = lab.entrance.follow_control(&netns).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !is_stopped.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
                let ready = poll(&mut fds, PollTimeout::from(100u8)).unwrap();
                if ready > 0 && read_events(&events).unwrap().0 {
                    entries.close_left_behind().unwrap();
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn active_and_passive_transfers_work_over_both_families_and_nothing_else_is_open() {
    let lab = Lab::new();
    let _server = lab.serve(&[]);
    let listeners = [(&lab.client, CLIENT), (&lab.server, SERVER)]
        .map(|(netns, own)| addresses(own).map(|address| listen(netns, address)));
    let high = || {
        let to = [(&lab.client, SERVER), (&lab.server, CLIENT)];
        to.map(|(from, to)| addresses(to).map(|address| reaches(from, address)))
    };
    assert_eq!(high(), [[true; 2]; 2], "nothing is filtered yet");
    let _tables = lab.enforce("21/tcp with helper ftp");
    for address in SERVER {
        for mode in MODES {
            assert_eq!(lab.ftp(&["get", address, mode]), SMALL, "{address} {mode}");
        }
    }
    assert_eq!(high(), [[false; 2]; 2], "a port that nobody agreed on");
    // Nor while a transfer is under way.
    let mut transfer = lab.slow(SERVER[0], "passive");
    assert_eq!(high(), [[false; 2]; 2], "a port that nobody agreed on");
    assert!(transfer.flow() > 0);
    drop(listeners);
}

#[test]
fn without_the_helper_there_is_a_control_connection_and_no_data_connection() {
    let lab = Lab::new();
    let _server = lab.serve(&[]);
    let _tables = lab.enforce("21/tcp");
    for address in SERVER {
        for mode in MODES {
            let said = lab.ftp(&["get", address, mode]);
            assert_ne!(said, SMALL, "{address} {mode}");
            assert!(!said.is_empty(), "{address} {mode}: it says what failed");
        }
    }
}

#[test]
fn a_transfer_ends_with_the_control_connection_whichever_end_is_looked_after() {
    let lab = Lab::new();
    let _server = lab.serve(&[]);
    let _tables = lab.enforce("21/tcp with helper ftp");
    for mode in MODES {
        let mut transfer = lab.slow(SERVER[1], mode);
        transfer.end_control();
        assert!(transfer.flow_later() > 0, "{mode}: nobody looks after it, so it goes on");
    }
    for (address, mode, netns) in [
        (SERVER[0], "passive", &lab.server),
        (SERVER[1], "active", &lab.client),
        (SERVER[1], "passive", &lab.client),
        (SERVER[0], "active", &lab.server),
    ] {
        let _following = Following::start(&lab, netns);
        let mut transfer = lab.slow(address, mode);
        assert!(transfer.flow_later() > 0, "{mode}: the control connection is open");
        transfer.end_control();
        assert_eq!(transfer.flow_later(), 0, "{address} {mode}");
    }
}

#[test]
fn a_revocation_leaves_transfers_alone_and_taking_the_helper_away_ends_them() {
    let lab = Lab::new();
    let _server = lab.serve(&[]);
    let mut tables = lab.enforce("21/tcp with helper ftp");
    for mode in MODES {
        lab.enforce_with(&mut tables, &["21/tcp with helper ftp", "80/tcp"]);
        let mut transfer = lab.slow(SERVER[0], mode);
        let generation =
            |table: &mut KernelTable| table.dump().unwrap().ruleset.unwrap().generation().unwrap();
        let before = generation(&mut tables[0]);
        lab.enforce_with(&mut tables, &["21/tcp with helper ftp"]);
        assert_ne!(generation(&mut tables[0]), before, "all is judged again");
        assert!(transfer.flow_later() > 0, "{mode}: found again by its control connection");
        lab.enforce_with(&mut tables, &["21/tcp"]);
        assert_eq!(transfer.flow_later(), 0, "{mode}");
    }
}

#[test]
fn a_control_connection_that_kept_its_helper_opens_nothing_once_that_is_taken_away() {
    let lab = Lab::new();
    let _server = lab.serve(&[]);
    let mut tables = lab.enforce("21/tcp with helper ftp");
    for (number, mode) in MODES.into_iter().enumerate() {
        lab.enforce_with(&mut tables, &["21/tcp with helper ftp"]);
        let program = format!(
            "import ftplib, sys\n\
             ftp = ftplib.FTP(timeout=4)\n\
             ftp.connect('{}', 21)\n\
             ftp.login()\n\
             ftp.set_pasv({})\n\
             print('ready', flush=True)\n\
             sys.stdin.readline()\n\
             try:\n\
             \x20   ftp.retrbinary('RETR small', lambda _: None)\n\
             \x20   print('got it')\n\
             except (OSError, EOFError, ftplib.Error) as error:\n\
             \x20   print(error)\n",
            SERVER[0],
            if number == 0 { "True" } else { "False" },
        );
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", lab.client.path().display()));
        command.args(["/usr/bin/python3", "-W", "ignore", "-c", &program]);
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        lab.enforce_with(&mut tables, &["21/tcp"]);
        drop(client.stdin.take());
        let said = lines.next().unwrap().unwrap();
        client.wait().unwrap();
        assert_ne!(said, "got it", "{mode}");
    }
}

#[test]
fn an_address_of_somebody_else_opens_nothing_to_them() {
    let lab = Lab::new();
    let server = lab.serve(&[]);
    for own in addresses(THIRD) {
        let third = listen(&lab.third, own);
        let is_reached = || match third.accept() {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        };
        let to = SERVER[usize::from(own.is_ipv6())];
        let (address, port) = (own.to_string(), HIGH_PORT.to_string());
        let said = lab.ftp(&["named", to, &address, &port]);
        assert!(is_reached(), "nothing is filtered yet: {said}");
        let mut tables = lab.enforce("21/tcp with helper ftp");
        let said = lab.ftp(&["named", to, &address, &port]);
        assert!(!is_reached(), "{said}");
        for table in &mut tables {
            let before = table.dump().unwrap();
            table.commit(&plan(before.ruleset.as_ref(), None), None).unwrap();
        }
    }
    drop(server);
    // And the other way: a server that leads its client to somebody else.
    let _server = lab.serve(&["--pretend", THIRD[0]]);
    let before = refusals(&lab.third);
    let said = lab.ftp(&["led", SERVER[0]]);
    assert!(refusals(&lab.third) > before, "it goes where it is led: {said}");
    let _tables = lab.enforce("21/tcp with helper ftp");
    let before = refusals(&lab.third);
    let said = lab.ftp(&["led", SERVER[0]]);
    assert_eq!(refusals(&lab.third), before, "{said}");
    assert_ne!(said, SMALL);
}

/// A client has the kernel expect its server, and then plays the server itself, over lo: its own packets to any port of the server
/// would be that connection's replies.
#[test]
fn what_is_expected_and_comes_over_lo_opens_nothing() {
    let lab = Lab::new();
    let _server = lab.serve(&[]);
    let mut tables = lab.enforce("21/tcp with helper ftp");
    // The server's end lets everything in: what leaves the client is asked.
    let before = tables[1].dump().unwrap();
    tables[1].commit(&plan(before.ruleset.as_ref(), None), None).unwrap();
    let before = refusals(&lab.server);
    inside_of(&lab.client, || {
        let [own, server]: [Ipv6Addr; 2] = [CLIENT, SERVER].map(|ends| ends[1].parse().unwrap());
        let mut control = TcpStream::connect((server, 21)).unwrap();
        let mut said = [0; 512];
        // The kernel reads nothing before it has seen a line end.
        for line in ["NOOP".to_owned(), format!("EPRT |2|{own}|{HIGH_PORT}|")] {
            assert!(control.read(&mut said).unwrap() > 0);
            write!(control, "{line}\r\n").unwrap();
        }
        assert!(control.read(&mut said).unwrap() > 0);
        // What answers it would go to the server.
        let _listener = TcpListener::bind((own, HIGH_PORT)).unwrap();
        let _played = frames::begin_tcp6((server, HIGH_PORT), (own, HIGH_PORT));
    });
    assert_eq!(refusals(&lab.server), before);
}

/// How many resets a netns has sent: nobody listens where it was connected to.
fn refusals(netns: &TestNetns) -> u64 {
    let told = netns.run(&["cat", "/proc/net/snmp"]);
    let told = String::from_utf8(told.stdout).unwrap();
    let mut lines = told.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "OutRsts");
    found.unwrap().1.parse().unwrap()
}

#[test]
fn a_denied_client_gets_no_helper() {
    let lab = Lab::new();
    let _server = lab.serve(&[]);
    let _tables = lab.enforce("21/tcp with helper ftp");
    let to = SocketAddr::new(SERVER[0].parse().unwrap(), 21);
    let is_connected =
        |netns: &TestNetns| inside_of(netns, move || TcpStream::connect_timeout(&to, LIMIT).ok());
    let third = is_connected(&lab.third);
    assert!(third.is_none(), "only the client may");
    let client = is_connected(&lab.client);
    assert!(client.is_some());
    let listed = lab.server.run(&["conntrack", "-L"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let helped: Vec<&str> = listed.lines().filter(|line| line.contains("helper=ftp")).collect();
    assert_eq!(helped.len(), 1, "{listed}");
    assert!(helped[0].contains(&format!("src={}", CLIENT[0])), "{listed}");
}

/// Has the client send a request to this port of the server, and the server something to the client's `media` port (none: the one
/// the request came from) from a port nobody was told of. Returns whether that arrives.
fn is_answered(lab: &Lab, port: u16, request: &str, media: Option<u16>) -> bool {
    let [client, server] = [(&lab.client, CLIENT[0], 5060), (&lab.server, SERVER[0], port)].map(
        |(netns, own, port)| {
            let own: IpAddr = own.parse().unwrap();
            let socket = inside_of(netns, move || UdpSocket::bind((own, port)).unwrap());
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket
        },
    );
    let own = client.local_addr().unwrap().ip();
    let media =
        media.map(|port| inside_of(&lab.client, move || UdpSocket::bind((own, port)).unwrap()));
    client.send_to(request.as_bytes(), server.local_addr().unwrap()).unwrap();
    server.recv_from(&mut [0; 1500]).expect("the request is allowed");
    let to = media.as_ref().unwrap_or(&client);
    to.set_read_timeout(Some(LIMIT)).unwrap();
    let from = server.local_addr().unwrap().ip();
    let unnamed = inside_of(&lab.server, move || UdpSocket::bind((from, 0)).unwrap());
    // Where it is denied the system may say so.
    let _ = unnamed.send_to(b"data", to.local_addr().unwrap());
    to.recv_from(&mut [0; 16]).is_ok()
}

#[test]
fn a_tftp_server_answers_from_another_port() {
    let lab = Lab::new();
    let request = "\0\u{1}small\0octet\0";
    let mut tables = lab.enforce("69/udp");
    assert!(!is_answered(&lab, 69, request, None), "without the helper");
    lab.enforce_with(&mut tables, &["69/udp with helper tftp"]);
    // The entry of the request before has no helper, and is not given one.
    lab.client.run(&["conntrack", "-F"]);
    lab.server.run(&["conntrack", "-F"]);
    assert!(is_answered(&lab, 69, request, None));
    assert!(!is_answered(&lab, 69, "\0\u{5}\0\0no\0", None), "nothing was asked for");
}

#[test]
fn a_call_opens_the_port_that_its_invitation_names_to_the_one_who_is_invited() {
    const MEDIA: u16 = 41_000;
    let lab = Lab::new();
    let (client, server) = (CLIENT[0], SERVER[0]);
    let body = format!(
        "v=0\r\no=- 0 0 IN IP4 {client}\r\ns=-\r\nc=IN IP4 {client}\r\nt=0 0\r\nm=audio {MEDIA} RTP/AVP 0\r\n"
    );
    let invitation = format!(
        "INVITE sip:b@{server} SIP/2.0\r\nVia: SIP/2.0/UDP {client}:5060\r\nFrom: <sip:a@{client}>;tag=1\r\n\
         To: <sip:b@{server}>\r\nCall-ID: 1@{client}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{client}:5060>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut tables = lab.enforce("5060/udp");
    assert!(!is_answered(&lab, 5060, &invitation, Some(MEDIA)), "without the helper");
    lab.enforce_with(&mut tables, &["5060/udp with helper sip"]);
    lab.client.run(&["conntrack", "-F"]);
    lab.server.run(&["conntrack", "-F"]);
    assert!(is_answered(&lab, 5060, &invitation, Some(MEDIA)));
    assert!(!is_answered(&lab, 5060, &invitation, Some(MEDIA + 100)), "another port");
}
