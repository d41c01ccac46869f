//! Kernel layer: what a raw socket sends past the IP stack's hooks is stopped at the link, and nothing else is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/attacks.rs"]
mod attacks;
#[path = "kernel/frames.rs"]
mod frames;
#[path = "kernel/guarded.rs"]
mod guarded;
#[path = "kernel/netns.rs"]
mod netns;

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use attacks::{ATTACKS, ELSEWHERE, Ends, FAR6, STRANGER4, STRANGER6, attack, frame4};
use frames::{Capture, IP};
use guarded::{Guarded, OTHER4, OTHER6, OWN4, OWN6, PORT};
use netns::inside_of;
use seawall::nft::message::seat;
use seawall::policy::Mode;

#[test]
fn what_raw_sockets_send_past_the_policy_is_stopped() {
    let mut guarded = Guarded::new();
    let all: Vec<_> = ATTACKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(attack(&guarded), all, "they get out: the test sends what it says");
    guarded.apply_unguarded();
    let without = attack(&guarded);
    let is_judged = |name: &&&str| name.starts_with("raw socket with another's address");
    let past: Vec<_> = all.iter().filter(|name| !is_judged(name)).copied().collect();
    assert_eq!((&without, past.len()), (&past, all.len() - 2), "what the policy cannot judge does");
    guarded.apply();
    let before = guarded.denied();
    assert_eq!(attack(&guarded), [""; 0], "with a guard nothing does");
    let denied = guarded.denied() - before;
    assert!(denied >= all.len() as u64, "all are counted: {denied}");
}

#[test]
fn ordinary_traffic_meets_no_guard() {
    let mut guarded = Guarded::new();
    guarded.apply();
    let before = guarded.denied();
    for other in [IpAddr::from(OTHER4), IpAddr::from(OTHER6)] {
        // Resolved anew each time: ARP and neighbour discovery pass.
        guarded.forget_neighbours();
        guarded.ping(other, 56);
        guarded.ping(other, 20_000);
        guarded.forget_neighbours();
        guarded.ping_back(other);
        assert_eq!(guarded.echo_udp(other, 30_000), 30_000, "fragments, there and back");
        guarded.bulk_tcp(other, 8 << 20);
        guarded.refused_udp(other);
    }
    assert_eq!(guarded.denied(), before, "nothing of it was stopped");
}

#[test]
fn neighbour_discovery_carries_nothing_and_stays_on_the_link() {
    let mut guarded = Guarded::new();
    let capture = inside_of(&guarded.outside, || Capture::at("eth0"));
    guarded.apply();
    for other in [IpAddr::from(OTHER4), IpAddr::from(OTHER6)] {
        guarded.ping(other, 8);
    }
    inside_of(&guarded.inside, || {
        let solicit = |to, mark, more| {
            let message = frames::discovery(OWN6, to, 135, OTHER6, mark, more);
            // Whether the sender is told matters to nobody.
            let _ = frames::by_raw6("eth0", &message);
        };
        solicit(OTHER6, *b"SHORT0", 0);
        solicit(OTHER6, *b"LONG_0", 600);
        solicit(FAR6, *b"FAR_00", 0);
        let report = [&[0; 4][..], b"REPORT"].concat();
        for to in [OTHER6, FAR6] {
            let report = frames::ipv6(OWN6, to, 58, 1, &frames::icmp6(OWN6, to, 143, &report));
            let _ = frames::by_raw6("eth0", &report);
        }
    });
    guarded.say(OTHER6.into(), b"the last one");
    let frames = capture.until(b"the last one");
    let arrived = |mark: &[u8]| frames.iter().any(|frame| frames::holds(frame, mark));
    assert!(arrived(b"SHORT0"), "what the kernel sends looks like this");
    for mark in [b"LONG_0", b"FAR_00", b"REPORT"] {
        assert!(!arrived(mark), "{}", String::from_utf8_lossy(mark));
    }
}

/// Where packets would go out again that come in over `lo`, and what a peer takes for its own connection.
#[test]
fn what_a_packet_socket_puts_on_lo_opens_nothing() {
    let mut guarded = Guarded::new();
    guarded.apply();
    let stranger = |mark| frames::udp(ELSEWHERE, PORT, mark);
    let capture = inside_of(&guarded.outside, || Capture::at("eth0"));
    let answer = inside_of(&guarded.inside, move || {
        let server = std::net::UdpSocket::bind((OWN4, PORT)).unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        // From the other end's port that no policy allows, to one that it may reach.
        let packet = frames::ipv4(OTHER4, OWN4, 17, 0, &stranger(b"hello!"));
        let frame = frames::ethernet([0; 6], [0; 6], IP, &packet);
        frames::by_packet("lo", IP, &frame, false).unwrap();
        // It may be taken for a packet with no route back; what matters is what is sent as its answer.
        let came_in = server.recv_from(&mut [0; 64]).is_ok();
        (came_in, server.send_to(b"REPLY!", (OTHER4, ELSEWHERE)).is_ok())
    });
    guarded.say(OTHER4.into(), b"the last one");
    let frames = capture.until(b"the last one");
    assert!(answer.0, "it came in");
    assert!(!frames.iter().any(|frame| frames::holds(frame, b"REPLY!")), "{answer:?}");
}

/// Duplicate address detection asks before the address is one, from no address at all.
#[test]
fn an_address_is_asked_for_before_it_is_own() {
    let mut guarded = Guarded::new();
    guarded.inside.run(&["sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1"]);
    guarded.apply();
    let before = guarded.denied();
    let capture = inside_of(&guarded.outside, || Capture::at("eth0"));
    guarded.inside.ip(&["addr", "add", "fd09::5/64", "dev", "eth0"]);
    let asked = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 5).octets();
    let frames = capture.until(&asked);
    let question = frames.last().unwrap();
    assert_eq!(question[22..38], [0; 16], "from nobody");
    assert_eq!(guarded.denied(), before);
    guarded.apply();
    // Taken once nobody answered.
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_tentative = || {
        let shown = guarded.inside.ip(&["-6", "addr", "show", "dev", "eth0", "tentative"]);
        !shown.stdout.is_empty()
    };
    while is_tentative() {
        assert!(Instant::now() < deadline, "it never becomes its own");
    }
    guarded.inside.run(&["ping", "-n", "-c", "1", "-W", "5", "-I", "fd09::5", &OTHER6.to_string()]);
    assert_eq!(guarded.denied(), before);
}

/// Where the model routes, others' packets pass with their own addresses; packet sockets do not.
#[test]
fn what_is_forwarded_keeps_its_sender_where_the_model_routes() {
    let mut guarded = Guarded::new();
    guarded.terms.routes = true;
    guarded.apply();
    let sent = |guarded: &Guarded| {
        let capture = inside_of(&guarded.outside, || Capture::at("eth0"));
        guarded.ping(OTHER4.into(), 8);
        let ends = Ends { own: guarded.mac(&guarded.inside), other: guarded.mac(&guarded.outside) };
        inside_of(&guarded.inside, move || {
            let strange = frames::ipv4(STRANGER4, OTHER4, 17, 0, &frames::udp(9, PORT, b"ROUTED"));
            // With a route, as what is forwarded has; and without, also over lo, from where it would be forwarded.
            let _ = frames::by_raw4(&strange);
            let _ = frames::by_packet("eth0", IP, &frame4(ends, *b"PACKET"), false);
            let inner = frames::ipv4(STRANGER4, OTHER4, 17, 0, &frames::udp(9, PORT, b"OVERLO"));
            let _ =
                frames::by_packet("lo", IP, &frames::ethernet([0; 6], [0; 6], IP, &inner), false);
        });
        guarded.say(OTHER4.into(), b"the last one");
        let frames = capture.until(b"the last one");
        [b"ROUTED", b"PACKET", b"OVERLO"]
            .map(|mark| frames.iter().any(|frame| frames::holds(frame, mark)))
    };
    assert_eq!(sent(&guarded), [true, false, false]);
    guarded.terms.routes = false;
    guarded.apply();
    assert_eq!(sent(&guarded), [false, false, false]);
}

/// What an `AF_XDP` socket sends passes no hook: there must be none.
#[test]
fn no_socket_past_all_hooks_can_be_opened() {
    let mut guarded = Guarded::new();
    let open = |guarded: &Guarded, link: &'static str| {
        let index = guarded.link(link);
        inside_of(&guarded.inside, move || {
            seat::take(index, 0).map(drop).map_err(|error| error.raw_os_error())
        })
    };
    guarded.apply_unguarded();
    assert_eq!(open(&guarded, "eth0"), Ok(()));
    // The kernel gives a queue back some time after it was closed.
    let deadline = Instant::now() + Duration::from_secs(10);
    while guarded.apply().unseated.is_some() {
        assert!(Instant::now() < deadline, "the queue never becomes free");
    }
    assert_eq!(open(&guarded, "eth0"), Err(Some(libc::EBUSY)));
    // It hinders nobody else.
    guarded.ping(OTHER4.into(), 56);
    guarded.bulk_tcp(OTHER4.into(), 1 << 20);

    guarded::join(&guarded.inside, "eth1", &guarded.outside, "eth1");
    assert_eq!(guarded.apply().unseated, None);
    assert_eq!(open(&guarded, "eth1"), Err(Some(libc::EBUSY)), "before it is up");
    guarded.inside.ip(&["link", "del", "eth1"]);
    guarded.apply();

    // Who was there first is not driven out, but told of.
    guarded::join(&guarded.inside, "eth1", &guarded.outside, "eth1");
    let index = guarded.link("eth1");
    let first = inside_of(&guarded.inside, move || seat::take(index, 0).unwrap());
    let told = guarded.apply().unseated.unwrap();
    assert!(told.starts_with("AF_XDP sockets pass the policy; "), "{told}");
    drop(first);
    while guarded.apply().unseated.is_some() {
        assert!(Instant::now() < deadline, "the queue never becomes free");
    }
    guarded.apply_unguarded();
    while open(&guarded, "eth0").is_err() {
        assert!(Instant::now() < deadline, "what is not needed is let go");
    }
}

#[test]
fn links_and_addresses_are_followed() {
    let mut guarded = Guarded::new();
    guarded.apply();
    let chains = |guarded: &Guarded| -> Vec<String> {
        let guard = guarded.dump().guard.unwrap();
        let links = guard.chains.into_values().filter_map(|chain| chain.base?.device);
        links.collect()
    };
    assert_eq!(chains(&guarded), ["eth0"]);

    // An address more is an element more, and no rule of what is IPv4 changes.
    guarded.inside.ip(&["addr", "add", "10.9.0.3/24", "dev", "eth0"]);
    let applied = guarded.apply();
    let done: Vec<String> = applied.transaction.described().collect();
    assert_eq!(done, ["add element own4 { 10.9.0.3 }", "netdev: add element own4 { 10.9.0.3 }"]);
    let from_new = || ["ping", "-n", "-c", "1", "-W", "5", "-I", "10.9.0.3", "10.9.0.1"];
    guarded.inside.run(&from_new());
    guarded.inside.ip(&["addr", "del", "10.9.0.3/24", "dev", "eth0"]);
    let applied = guarded.apply();
    let done: Vec<String> = applied.transaction.described().collect();
    let deletes = ["delete element own4 { 10.9.0.3 }", "netdev: delete element own4 { 10.9.0.3 }"];
    assert!(deletes.iter().all(|delete| done.iter().any(|one| one == delete)), "{done:?}");
    assert!(applied.transaction.revokes, "what was judged for that address is judged again");
    guarded.inside.ip(&["addr", "add", "fd09::3/64", "dev", "eth0", "nodad"]);
    assert!(!guarded.apply().transaction.is_empty());
    guarded.inside.run(&["ping", "-n", "-c", "1", "-W", "5", "-I", "fd09::3", &OTHER6.to_string()]);

    // Another link, guarded before it is up.
    guarded::join(&guarded.inside, "eth1", &guarded.outside, "eth1");
    guarded.apply();
    assert_eq!(chains(&guarded), ["eth0", "eth1"]);
    // One that is gone takes its chain with it, whatever the kernel left of it.
    guarded.inside.ip(&["link", "del", "eth1"]);
    guarded.apply();
    assert_eq!(chains(&guarded), ["eth0"]);
    guarded::join(&guarded.inside, "eth1", &guarded.outside, "eth1");
    guarded.doubt();
    guarded.apply();
    assert_eq!(chains(&guarded), ["eth0", "eth1"]);
    assert!(guarded.apply().transaction.is_empty(), "applying twice changes nothing");
}

#[test]
fn addresses_a_container_gives_itself_are_not_its_own() {
    let mut guarded = Guarded::new();
    guarded.terms.is_admin = true;
    let first = guarded.apply().addresses;
    assert!(first.contains(&IpAddr::from(OWN4)) && first.contains(&IpAddr::from(OWN6)));
    guarded.terms.named = first;
    guarded.ping(OTHER4.into(), 8);
    guarded.ping(OTHER6.into(), 8);
    guarded.inside.ip(&["addr", "add", &format!("{STRANGER4}/24"), "dev", "eth0"]);
    guarded.inside.ip(&["addr", "add", &format!("{STRANGER6}/64"), "dev", "eth0", "nodad"]);
    let applied = guarded.apply();
    assert!(!applied.addresses.contains(&STRANGER4.into()), "{:?}", applied.addresses);
    assert!(!applied.addresses.contains(&STRANGER6.into()), "{:?}", applied.addresses);
    let capture = inside_of(&guarded.outside, || Capture::at("eth0"));
    inside_of(&guarded.inside, || {
        for (own, other) in
            [(IpAddr::from(STRANGER4), IpAddr::from(OTHER4)), (STRANGER6.into(), OTHER6.into())]
        {
            let socket = std::net::UdpSocket::bind((own, 0)).unwrap();
            let _ = socket.send_to(b"STRANGER", (other, PORT));
        }
    });
    guarded.say(OTHER4.into(), b"the last one");
    let frames = capture.until(b"the last one");
    assert!(!frames.iter().any(|frame| frames::holds(frame, b"STRANGER")));
    // Unless the runtime names them.
    guarded.terms.named.insert(STRANGER4.into());
    assert!(guarded.apply().addresses.contains(&STRANGER4.into()));
}

#[test]
fn hand_made_changes_of_the_guard_are_found_and_undone() {
    let changes = [
        "flush chain netdev seawall deny_raw",
        "insert rule netdev seawall link2 accept",
        "add element netdev seawall own4 { 10.9.0.77 }",
        "delete element netdev seawall own6 { fd09::2 }",
        "chain netdev seawall link2 { policy accept; }",
        "add chain netdev seawall side { type filter hook egress device \"eth0\" priority -5; policy accept; }",
        "delete table netdev seawall",
    ];
    let mut guarded = Guarded::new();
    // What belongs to a socket nobody else can change: here it shall be possible.
    guarded.share();
    guarded.apply();
    for change in changes {
        guarded.inside.run(&["nft", change]);
        guarded.doubt();
        assert!(!guarded.apply().transaction.is_empty(), "{change} is not seen");
        guarded.doubt();
        assert!(guarded.apply().transaction.is_empty(), "{change} is not undone");
    }
    assert_eq!(attack(&guarded), [""; 0]);
}

#[test]
fn where_nothing_is_denied_there_is_no_guard_and_clearing_takes_it() {
    let mut guarded = Guarded::new();
    guarded.share();
    guarded.apply();
    assert!(guarded.dump().guard.is_some());
    guarded.apply_unguarded();
    assert_eq!(guarded.dump().guard, None);
    guarded.apply();
    assert!(guarded.clear(), "there was something");
    let left = guarded.inside.run(&["nft", "list", "ruleset"]);
    assert_eq!(String::from_utf8_lossy(&left.stdout).trim(), "");
}

#[test]
fn the_guards_text_loads_with_nft_and_dumps_to_the_same_guard() {
    for routes in [false, true] {
        let mut guarded = Guarded::new();
        guarded.share();
        guarded.terms.routes = routes;
        guarded.inside.ip(&["addr", "add", "fd09:1::9/65", "dev", "eth0", "nodad"]);
        let wanted = guarded.apply().known.guard;
        let text = seawall::nft::render(wanted.as_ref().unwrap());
        guarded.inside.run(&["nft", "delete table netdev seawall"]);
        guarded.inside.run(&["nft", &text]);
        assert_eq!(guarded.dump().guard, wanted, "{text}");
    }
}

#[test]
fn packets_are_counted_with_and_without_a_guard() {
    let mut guarded = Guarded::new();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // One after the other, in short turns: whatever else the machine does meets both.
    for _ in 0..15 {
        guarded.apply_unguarded();
        without.push(guarded.packets_a_second());
        guarded.apply();
        with.push(guarded.packets_a_second());
    }
    let [without, with] = [without, with].map(|mut rates| {
        rates.sort_unstable();
        rates[rates.len() / 2]
    });
    println!("{without} small packets/s without a guard, {with} with (the middle of 15 turns)");
    let first = Guarded::new().first_transactions();
    println!("first transaction: {first:?}");
}

#[test]
fn a_link_that_went_before_it_was_told_costs_the_others_no_guard() {
    let mut netns = Guarded::new();
    netns.inside.ip(&["link", "add", "eth1", "type", "veth", "peer", "name", "eth2"]);
    netns.inside.ip(&["link", "set", "eth1", "up"]);
    netns.watch();
    netns.apply();
    let stays = netns.link("eth0");
    netns.inside.ip(&["link", "del", "eth1"]);
    // A change of everything there, planned for links as they were. Older kernels refuse it: the chain went with the link.
    (netns.mode, netns.terms.denies) = (Mode::Observe, false);
    let applied = netns.apply();
    assert_eq!(applied.unguarded, None);
    let chains = applied.known.guard.unwrap().chains;
    assert!(chains.contains_key(&format!("link{stays}")), "{:?}", chains.keys());
}
