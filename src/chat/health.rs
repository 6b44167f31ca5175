//! `/health`, for load balancers and supervisors.

use std::borrow::Cow;

use super::{
    app::App,
    payload::{self, Health},
};
use crate::server::{Header, Method, Request, Response, Stats, StatusCode, StoreStatus};

impl App {
    pub(super) fn health(&self) -> Health<'static> {
        let stats = self.stats();
        let problems = stats.as_ref().map(problems).unwrap_or_default();
        let status = match (self.is_stopping(), problems.is_empty()) {
            (true, _) => Health::SHUTTING_DOWN,
            (false, true) => Health::HEALTHY,
            (false, false) => Health::DEGRADED,
        };
        let store = stats.map(|stats| stats.store).filter(|store| *store != StoreStatus::Off);
        Health {
            status: status.into(),
            clients: self.counters.clients(),
            timestamp: payload::now(),
            uptime: self.uptime(),
            version: env!("CARGO_PKG_VERSION").into(),
            store: store.map(|store| store.to_string().into()),
            problems,
        }
    }

    pub(super) fn health_response(&self, request: &Request<'_>) -> Response {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return with_header(Response::from_string("").with_status_code(405), "Allow", "GET, HEAD");
        }
        let (status, kind, body) = self.health_answer();
        let response = Response::from_string(body).with_status_code(StatusCode(status));
        let response = with_header(response, "Content-Type", kind);
        with_header(response, "Cache-Control", "no-store")
    }

    /// Status, content type and body.
    pub(super) fn health_answer(&self) -> (u16, &'static str, String) {
        let health = self.health();
        let status = if health.is_serving() { 200 } else { 503 };
        // Texts and numbers always serialise.
        (status, "application/json", serde_json::to_string(&health).unwrap_or_default())
    }
}

/// The problems that make a working server degraded.
fn problems(stats: &Stats) -> Vec<Cow<'static, str>> {
    let mut problems = Vec::new();
    if let StoreStatus::Failed(why) = &stats.store {
        problems.push(format!("nothing is kept in the store: {why}").into());
    }
    if stats.is_full() {
        problems.push(
            format!(
                "new clients are refused: {} of {} sessions and {} of {} connections are open",
                stats.sessions, stats.max_connections, stats.connections, stats.max_tcp_connections
            )
            .into(),
        );
    }
    problems
}

fn with_header(response: Response, name: &str, value: &str) -> Response {
    match Header::from_bytes(name, value) {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    }
}
