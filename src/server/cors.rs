//! Which web pages may talk to the server: the official `cors.origin` option, applied to WebSocket too.

/// The origins that may use the server from a browser.
///
/// Programs that are no browser send no `Origin` and are not concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cors {
    /// The default. No CORS header is sent, so browsers keep pages of other origins from polling; a WebSocket is
    /// refused (400, as the official server answers all refusals there) when its `Origin` is not the host it was sent to. The official server takes WebSockets from every
    /// page here.
    #[default]
    SameOrigin,
    /// Every origin, the official `origin: "*"`.
    Any,
    /// These origins, each as browsers write it: `https://example.org`, `http://localhost:3000`. A request from another
    /// one is refused (403) on both transports.
    List(Vec<String>),
}

impl Cors {
    /// Whether a request with this `Origin`, sent to this host, may be served. `websocket`: the same-origin rule
    /// is ours to keep, because browsers do not keep it for WebSockets.
    pub(super) fn allows(&self, origin: Option<&str>, host: Option<&str>, websocket: bool) -> bool {
        let Some(origin) = origin else { return true };
        match self {
            Self::Any => true,
            Self::List(origins) => origins.iter().any(|allowed| allowed == origin),
            Self::SameOrigin => !websocket || host.is_some_and(|host| authority(origin) == Some(host)),
        }
    }

    /// The `Access-Control-Allow-Origin` to answer this origin with.
    pub(super) fn allow_origin<'a>(&self, origin: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::SameOrigin => None,
            Self::Any => Some(origin.unwrap_or("*")),
            Self::List(origins) => origin.filter(|origin| origins.iter().any(|allowed| allowed == origin)),
        }
    }
}

/// `example.org:8080` of `http://example.org:8080`.
fn authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}
