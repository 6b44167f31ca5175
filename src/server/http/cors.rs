//! The web pages that may use the server: the official `cors.origin` option, applied to WebSocket too.
//!
//! Pure functions of the option and of headers.

/// The origins that may use the server from a browser.
///
/// Programs that are not browsers send no `Origin`. For them it has no effect. A request that is refused is answered
/// with 403 on polling, and with 400 on WebSocket, where the official server answers every refusal so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cors {
    /// The default. No CORS header is sent, so browsers keep pages of other origins from polling; a WebSocket is
    /// refused when its `Origin` is not the host it was sent to (behind a proxy: `X-Forwarded-Host`, or else the same
    /// name with any port). The official server takes WebSockets from every page here.
    #[default]
    SameOrigin,
    /// Every origin, without credentials: the official `origin: "*"`. A browser gives a page of another origin nothing
    /// that it asked for with the user's cookies (`withCredentials: true` in the official client).
    ///
    /// On WebSocket browsers send the cookies whatever the server says here, as to the official server. A server that
    /// knows its users by a cookie must name the origins ([`List`](Self::List)), or set the cookie `SameSite=Lax` or
    /// `Strict`.
    Any,
    /// Every origin, with credentials: the official `origin: true, credentials: true`. Any page can then send
    /// requests with the cookies of its user. Only for servers that do not identify users by cookies.
    AnyWithCredentials,
    /// These origins, each as browsers write it: `https://example.org`, `http://localhost:3000`; without credentials,
    /// as the official `origin: [...]`. A request from another one is refused on both transports.
    List(Vec<String>),
    /// These origins with credentials: the official `origin: [...], credentials: true`. A page needs them when it
    /// connects with `withCredentials: true`, for a cookie of the login or of a load balancer.
    ListWithCredentials(Vec<String>),
}

/// Where a request was sent to, from its headers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Target<'a> {
    pub(crate) host: Option<&'a str>,
    /// It came through a proxy, which may have taken the port off the host.
    pub(crate) proxied: bool,
}

impl Cors {
    /// Whether a request with this `Origin` to this target may be served. On WebSocket the server must enforce the
    /// same-origin rule, because browsers do not.
    pub(crate) fn allows(&self, origin: &str, target: Target<'_>, websocket: bool) -> bool {
        match self {
            Self::Any | Self::AnyWithCredentials => true,
            Self::List(origins) | Self::ListWithCredentials(origins) => {
                origins.iter().any(|allowed| allowed == origin)
            }
            Self::SameOrigin => !websocket || is_same(origin, target),
        }
    }

    /// The CORS headers of a response.
    pub(crate) fn headers<'a>(
        &self,
        origin: Option<&'a str>,
    ) -> impl Iterator<Item = (&'static str, &'a str)> + use<'a> {
        let allowed = self.allow_origin(origin).filter(|allowed| allowed.is_ascii());
        let named = allowed.is_some_and(|allowed| allowed != "*");
        let vary = named.then_some(("Vary", "Origin"));
        // Browsers do not accept it beside `*`.
        let credentials =
            (named && self.gives_credentials()).then_some(("Access-Control-Allow-Credentials", "true"));
        let allowed = allowed.map(|allowed| ("Access-Control-Allow-Origin", allowed));
        allowed.into_iter().chain(credentials).chain(vary)
    }

    fn gives_credentials(&self) -> bool {
        matches!(self, Self::AnyWithCredentials | Self::ListWithCredentials(_))
    }

    /// The value of `Access-Control-Allow-Origin` for this origin.
    fn allow_origin<'a>(&self, origin: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::SameOrigin => None,
            Self::Any => Some("*"),
            Self::AnyWithCredentials => Some(origin.unwrap_or("*")),
            Self::List(origins) | Self::ListWithCredentials(origins) => {
                origin.filter(|origin| origins.iter().any(|allowed| allowed == origin))
            }
        }
    }
}

fn is_same(origin: &str, target: Target<'_>) -> bool {
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let (Some(authority), Some(host)) = (authority, target.host) else { return false };
    authority == host || (target.proxied && name(authority) == host)
}

/// `example.org` of `example.org:8080`.
fn name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}
