//! The server's URL: its parts, and the targets of the requests.
//!
//! Owns the address and the query. Uses [`Error`] only. It must not look up a name.
//!
//! `http::Uri` would not make this shorter: it drops a fragment, accepts a password and a bad port, and knows no
//! `unix:`, so the checks would remain. It has the last word on the characters.

use std::{fmt::Write as _, path::PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

use super::Error;
use crate::proto::{engine::TransportKind, limits};

/// The characters that are percent-encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A server's address and the requests that are made to it.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    /// Whether TLS goes over it.
    pub(super) secure: bool,
    /// The `Host` header.
    pub(super) authority: String,
    /// The namespace that the URL names.
    pub(super) namespace: String,
    /// Path, and query up to `transport=`.
    base: String,
    /// The rest of the query: the user's parameters, each after an `&`.
    query: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Endpoint {
    /// Takes `url` apart. `path` and `query` are the options of these names.
    pub(super) fn new(url: &str, path: &str, query: &[(String, String)]) -> Result<Self, Error> {
        let invalid = |why: &str| Error::Invalid(format!("URL {url:?}: {why}"));
        let (scheme, rest) = url.split_once(':').ok_or_else(|| invalid("no scheme, such as http://"))?;
        if url.contains('#') || url.contains(|c: char| c.is_control() || c == ' ') {
            return Err(invalid("it has a character that a URL cannot have"));
        }
        let (rest, url_query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut endpoint = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => Self::tcp(rest, false).map_err(invalid)?,
            "https" | "wss" if cfg!(feature = "tls") => Self::tcp(rest, true).map_err(invalid)?,
            "https" | "wss" => return Err(invalid("built without the feature `tls`")),
            "unix" => Self::unix(rest).map_err(invalid)?,
            _ => return Err(invalid("the scheme is none of http, https, ws, wss, unix")),
        };
        let slash = |missing| if missing { "/" } else { "" };
        endpoint.base = format!(
            "{}{path}{}?EIO={}&transport=",
            slash(!path.starts_with('/')),
            slash(!path.ends_with('/')),
            limits::ENGINE_PROTOCOL
        );
        for pair in url_query.split('&').filter(|pair| !pair.is_empty()) {
            let _ = write!(endpoint.query, "&{pair}");
        }
        for (name, value) in query {
            let _ = write!(endpoint.query, "&{}={}", encode(name), encode(value));
        }
        let target = endpoint.target(TransportKind::Polling, None);
        endpoint.url("http", &target).parse::<http::Uri>().map_err(|error| invalid(&error.to_string()))?;
        Ok(endpoint)
    }

    fn tcp(rest: &str, secure: bool) -> Result<Self, &'static str> {
        let rest = rest.strip_prefix("//").ok_or("two slashes belong behind the scheme")?;
        let (authority, namespace) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err("a user and a password do not belong in it: use extra_header(\"authorization\", …)");
        }
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| "the port is no number from 0 to 65535")?)
            }
            _ => (authority, if secure { 443 } else { 80 }),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("it has no host");
        }
        Ok(Self {
            address: Address::Tcp { host: host.to_owned(), port },
            secure,
            authority: authority.to_owned(),
            namespace: namespace.to_owned(),
            base: String::new(),
            query: String::new(),
        })
    }

    fn unix(rest: &str) -> Result<Self, &'static str> {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        if !path.starts_with('/') {
            return Err("the path of the socket must be absolute");
        }
        Ok(Self {
            address: Address::Unix(path.into()),
            secure: false,
            authority: "localhost".to_owned(),
            namespace: limits::DEFAULT_NAMESPACE.to_owned(),
            base: String::new(),
            query: String::new(),
        })
    }

    /// The server, for the log: without path and query, which may carry secrets.
    pub(super) fn name(&self) -> String {
        match &self.address {
            Address::Tcp { host, port } => format!("{host}:{port}"),
            Address::Unix(path) => path.display().to_string(),
        }
    }

    /// Path and query of a request.
    pub(super) fn target(&self, transport: TransportKind, sid: Option<&str>) -> String {
        let mut target = format!("{}{transport}", self.base);
        if let Some(sid) = sid {
            let _ = write!(target, "&sid={}", encode(sid));
        }
        target.push_str(&self.query);
        target
    }

    /// The URL of a request.
    pub(super) fn url(&self, scheme: &str, target: &str) -> String {
        format!("{scheme}://{}{target}", self.authority)
    }
}

/// Encodes everything but the unreserved characters (RFC 3986 2.3).
fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://localhost:5000", "localhost", 5000, false, "/")]
    #[case("ws://example.com", "example.com", 80, false, "/")]
    #[case("https://example.com/chat", "example.com", 443, true, "/chat")]
    #[case("wss://example.com:8443/", "example.com", 8443, true, "/")]
    #[case("http://[::1]:5000/a/b", "::1", 5000, false, "/a/b")]
    #[case("http://[::1]", "::1", 80, false, "/")]
    #[case("HTTP://example.com?a=b", "example.com", 80, false, "/")]
    fn addresses(
        #[case] url: &str,
        #[case] host: &str,
        #[case] port: u16,
        #[case] secure: bool,
        #[case] namespace: &str,
    ) {
        let endpoint = Endpoint::new(url, "/socket.io/", &[]).unwrap();
        assert_eq!(endpoint.address, Address::Tcp { host: host.into(), port });
        assert_eq!((endpoint.secure, &*endpoint.namespace), (secure, namespace));
    }

    #[rstest]
    #[case("unix:///run/sio.sock")]
    #[case("unix:/run/sio.sock")]
    fn unix_addresses(#[case] url: &str) {
        let endpoint = Endpoint::new(url, "/socket.io/", &[]).unwrap();
        assert_eq!(endpoint.address, Address::Unix("/run/sio.sock".into()));
    }

    #[rstest]
    #[case("localhost")]
    #[case("localhost:5000")]
    #[case("ftp://localhost")]
    #[case("http:/localhost")]
    #[case("http://")]
    #[case("http://:80")]
    #[case("http://host:port")]
    #[case("http://host:65536")]
    #[case("http://user:pass@host")]
    #[case("http://ho st/")]
    #[case("http://host/#a")]
    #[case("http://host\r\nx: y/")]
    #[case("http://h\u{e4}st\u{7f}/")]
    #[case("unix:relative")]
    #[case("unix:")]
    #[case("")]
    fn refused(#[case] url: &str) {
        assert!(matches!(Endpoint::new(url, "/socket.io/", &[]), Err(Error::Invalid(_))), "{url}");
    }

    #[test]
    fn targets() {
        let query = [("token".to_owned(), "a b&c=\u{e4}".to_owned())];
        let endpoint = Endpoint::new("http://h/ns?x=1&y", "custom", &query).unwrap();
        assert_eq!(
            endpoint.target(TransportKind::Websocket, Some("s+1")),
            "/custom/?EIO=4&transport=websocket&sid=s%2B1&x=1&y&token=a%20b%26c%3D%C3%A4"
        );
    }
}
