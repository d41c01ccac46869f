//! A container's first word: sends to every address it is given as soon as it runs, and says who answered.
//!
//! usage: firstword [--stay SECONDS] ADDRESS:PORT…
//!
//! Built without a dynamic loader, so that nothing runs before it. Each address gets datagrams at once, then a TCP
//! connection is tried; a line `ADDRESS:PORT reached`, `… refused` or `… silent` tells how that went.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

fn main() {
    let mut stay = 0;
    let mut addresses = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--stay" => stay = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(0),
            text => addresses.extend(text.parse::<SocketAddr>()),
        }
    }
    for address in &addresses {
        let own: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // A denial is an error here and there; the next address is tried all the same.
        if let Ok(socket) = UdpSocket::bind((own, 0)) {
            let _ = socket.send_to(b"first word", address);
        }
    }
    for address in &addresses {
        // Shorter than TCP's second try: a first packet that is lost shows.
        let answer = TcpStream::connect_timeout(address, Duration::from_millis(900));
        let word = match answer.map_err(|error| error.kind()) {
            Ok(_) => "reached",
            Err(ErrorKind::TimedOut | ErrorKind::WouldBlock) => "silent",
            Err(_) => "refused",
        };
        println!("{address} {word}");
    }
    std::thread::sleep(Duration::from_secs(stay));
}
