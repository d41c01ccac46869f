//! Tests of the webhook with real servers, with and without TLS.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use ureq::tls::Certificate;

use super::*;
use crate::config::SinkSettings;
use crate::observe::sample::event;
use crate::observe::sinks::Sinks;
use crate::observe::sinks::tests::{PATIENCE, until};

/// What a server was sent: its first line, its headers, its body.
struct Request {
    first: String,
    headers: String,
    body: Vec<Event>,
}

fn serve(stream: &mut (impl Read + Write), status: u16) -> Option<Request> {
    let mut reader = BufReader::new(&mut *stream);
    let (mut first, mut headers) = (String::new(), String::new());
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        headers.push_str(&line.to_lowercase());
    }
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.trim().parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let answer = format!(
        "HTTP/1.1 {status} X\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).ok()?;
    stream.flush().ok()?;
    Some(Request { first, headers, body: serde_json::from_slice(&body).expect("it is an array") })
}

/// A server that gives one answer after the other, then ends.
fn server(statuses: &'static [u16]) -> (SocketAddr, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = sync_channel(100);
    std::thread::spawn(move || {
        for status in statuses {
            let (mut stream, _) = listener.accept().unwrap();
            if let Some(request) = serve(&mut stream, *status) {
                sender.send(request).unwrap();
            }
        }
    });
    (address, requests)
}

fn sinks(url: &str) -> Sinks {
    let webhook = WebhookUrl::parse(url);
    assert!(webhook.is_some(), "{url}");
    Sinks::start(&SinkSettings { journald: Some(false), webhook, ..SinkSettings::default() })
}

#[test]
fn events_come_as_arrays_whatever_the_names_are() {
    let (address, requests) = server(&[204]);
    let sinks = sinks(&format!("http://{address}/hook?key=secret"));
    for number in 1..=3 {
        sinks.send(&event(number));
    }
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(request.first, "POST /hook?key=secret HTTP/1.1\r\n");
    assert!(request.headers.contains("content-type: application/json\r\n"), "{}", request.headers);
    assert!(request.headers.contains("user-agent: seawall/"), "{}", request.headers);
    let sequences: Vec<u64> = request.body.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(request.body[0].message, event(1).message);
    assert!(sinks.problems().is_empty());
}

#[test]
fn a_server_in_trouble_is_asked_again_and_nothing_is_lost() {
    let (address, requests) = server(&[503, 429, 200]);
    let sinks = sinks(&format!("http://{address}/secret"));
    sinks.send(&event(1));
    requests.recv_timeout(PATIENCE).unwrap();
    until("the problem", || !sinks.problems().is_empty());
    let problem = sinks.problems().remove(0);
    assert!(problem.starts_with(&format!("webhook: http://{address} answers ")), "{problem}");
    for _ in 0..2 {
        assert_eq!(requests.recv_timeout(PATIENCE).unwrap().body[0].sequence, 1);
    }
    until("recovery", || sinks.problems().is_empty());
    assert_eq!(sinks.lost(), [("webhook", 0)]);
}

#[test]
fn what_a_server_refuses_is_given_up_and_redirects_are_not_followed() {
    let (address, requests) = server(&[400, 302, 200]);
    let sinks = sinks(&format!("http://{address}/"));
    for number in 1..=3 {
        sinks.send(&event(number));
        assert_eq!(requests.recv_timeout(PATIENCE).unwrap().body[0].sequence, number);
        until("the count", || sinks.lost() == [("webhook", number.min(2))]);
    }
    assert!(sinks.problems()[0].contains("2 events were lost"), "{:?}", sinks.problems());
}

#[test]
fn a_server_that_never_answers_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sinks = sinks(&format!("http://{}/", listener.local_addr().unwrap()));
    sinks.send(&event(1));
    let (_open, _) = listener.accept().unwrap();
    let start = Instant::now();
    sinks.close(Duration::from_millis(200));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn https_needs_a_certificate_that_is_trusted() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let trusted = Certificate::from_der(cert.der()).to_owned();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let answer = || {
            let (stream, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            serve(&mut StreamOwned::new(connection, stream), 200).map(|request| request.body.len())
        };
        [answer(), answer()]
    });
    let url = || WebhookUrl::parse(&format!("https://localhost:{port}/secret")).unwrap();
    let events = [Arc::new(event(1))];
    let told = Webhook::new(url(), system_roots()).deliver(&events).unwrap_err();
    let Undelivered::Later(told) = told else { panic!("{told}") };
    assert!(told.contains("certificate") && !told.contains("secret"), "{told}");
    let mut webhook = Webhook::new(url(), RootCerts::new_with_certs(&[trusted]));
    webhook.deliver(&events).unwrap();
    assert_eq!(server.join().unwrap(), [None, Some(1)], "the first one is sent nothing");
}
