//! TLS: certificates that are trusted, and those that are not.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rstest::rstest;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tinysio::client::{Client, Error, Step, TransportKind};

use crate::support::{LONG, Way, in_thread, own_server, quick, until};

/// A TLS front for a server: decrypts, and passes on. Gives its port and the certificate, PEM.
fn front(upstream: &tinysio::Server, names: &[&str]) -> (u16, String) {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let (config, upstream) = (Arc::new(config), upstream.local_addr().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    in_thread(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tls = ServerConnection::new(config.clone()).unwrap();
            let upstream = TcpStream::connect(upstream).unwrap();
            in_thread(move || pass(StreamOwned::new(tls, stream), upstream));
        }
    });
    (port, cert.pem())
}

/// Carries bytes both ways, taking turns, until one side ends.
fn pass(mut outside: StreamOwned<ServerConnection, TcpStream>, mut inside: TcpStream) {
    outside.sock.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    inside.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut buf = [0; 4_096];
    loop {
        match outside.read(&mut buf) {
            Ok(0) => return,
            Ok(n) => inside.write_all(&buf[..n]).unwrap(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        match inside.read(&mut buf) {
            Ok(0) => return,
            Ok(n) => {
                if outside.write_all(&buf[..n]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[rstest]
#[case("https", "localhost", &["localhost"])]
#[case("wss", "localhost", &["other", "localhost"])]
#[case("https", "127.0.0.1", &["127.0.0.1"])]
fn works_with_an_authority_of_ones_own(
    #[case] scheme: &str,
    #[case] host: &str,
    #[case] names: &[&str],
    #[values(Way::Polling, Way::Websocket, Way::Upgrade)] way: Way,
) {
    let server = own_server("127.0.0.1:0");
    let (port, pem) = front(&server, names);
    let client = way.set(quick(&format!("{scheme}://{host}:{port}"))).ca_pem(pem.as_bytes()).build().unwrap();
    client.connect().unwrap();
    let socket = client.socket("/");
    for size in [1, 1_000, 300_000] {
        let text = "x".repeat(size);
        let answer = socket.emit_with_ack("echo", &text, LONG).unwrap();
        assert!(answer.get::<String>(0).unwrap() == text);
    }
    if way == Way::Upgrade {
        until("the upgrade", || client.status().transport == Some(TransportKind::Websocket));
        socket.emit_with_ack("echo", (), LONG).unwrap();
    }
    client.disconnect_within(LONG).unwrap();
}

#[rstest]
#[case::not_trusted("localhost", &["localhost"], false)]
#[case::another_name("localhost", &["example.com"], true)]
#[case::another_address("127.0.0.1", &["localhost"], true)]
fn a_certificate_that_is_not_good_is_refused(
    #[case] host: &str,
    #[case] names: &[&str],
    #[case] trusted: bool,
    #[values(Way::Polling, Way::Websocket)] way: Way,
) {
    let server = own_server("127.0.0.1:0");
    let (port, pem) = front(&server, names);
    let mut builder = way.set(Client::builder(&format!("https://{host}:{port}"))).reconnection(false);
    if trusted {
        builder = builder.ca_pem(pem.as_bytes());
    }
    let error = builder.build().unwrap().connect().unwrap_err();
    assert!(matches!(error, Error::Unreachable { step: Step::Tls, .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[rstest]
fn a_server_without_tls_is_told_apart(#[values(Way::Polling, Way::Websocket)] way: Way) {
    let server = own_server("127.0.0.1:0");
    let url = format!("https://{}", server.local_addr().unwrap());
    let client =
        way.set(Client::builder(&url)).reconnection(false).timeout(Duration::from_secs(2)).build().unwrap();
    let error = client.connect().unwrap_err();
    assert!(matches!(error, Error::Unreachable { step: Step::Tls, .. }), "{error}");
}

#[test]
fn a_handshake_that_never_comes_is_given_up() {
    let client = Client::builder(&crate::hostile::silent().replace("http", "https"))
        .reconnection(false)
        .timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = client.connect().unwrap_err();
    assert!(matches!(error, Error::Unreachable { step: Step::Tls, .. }), "{error}");
}

#[test]
fn a_file_without_a_certificate_is_an_error() {
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let built = Client::builder("https://localhost").ca_pem(pem.as_bytes()).build();
        assert!(matches!(built, Err(Error::Invalid(text)) if text.starts_with("ca_pem")));
    }
}
