//! What runs inside the containers of `benches/peers`. Built without a dynamic loader, so that nothing runs before it.
//!
//! usage: inside send MILLISECONDS DENIED ALLOWED
//!        inside serve PORT
//!
//! `send` sends a datagram to DENIED at its first instruction and then every millisecond; each holds the microseconds
//! since the first. Beside that it tries a TCP connection to ALLOWED until there is one. It prints `allowed MICROSECONDS`
//! and `sent COUNT`. `serve` prints `serves MICROSECONDS`, since 1970, and accepts TCP connections.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["send", millis, denied, allowed] => {
            let allowed = allowed.parse().expect("an address and a port");
            let length = Duration::from_millis(millis.parse().expect("a number"));
            send(length, denied.parse().expect("an address and a port"), allowed);
            // It stays for what is done to its peer.
            loop {
                std::thread::park();
            }
        }
        ["serve", port] => serve(port.parse().expect("a port")),
        _ => panic!("unknown arguments {arguments:?}"),
    }
}

fn send(length: Duration, denied: SocketAddr, allowed: SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port is free");
    let began = Instant::now();
    let mut sent = 0_u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while TcpStream::connect_timeout(&allowed, Duration::from_millis(10)).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
            println!("allowed {}", began.elapsed().as_micros());
        });
        while began.elapsed() < length {
            let since = u64::try_from(began.elapsed().as_micros()).expect("some seconds");
            // A denial is an error here and there; it is sent all the same.
            let _ = socket.send_to(&since.to_be_bytes(), denied);
            sent += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    println!("sent {sent}");
}

fn serve(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    println!("serves {}", now.as_micros());
    for stream in listener.incoming() {
        drop(stream);
    }
}
