//! `/health`, for load balancers and supervisors.

use super::{
    app::App,
    payload::{self, Health},
};
use crate::server::{Header, Method, Request, Response, StatusCode};

impl App {
    pub(super) fn health(&self) -> Health<'static> {
        Health {
            status: if self.is_stopping() { "shutting_down" } else { "healthy" }.into(),
            clients: self.counters.clients(),
            timestamp: payload::now(),
            uptime: self.uptime(),
            version: env!("CARGO_PKG_VERSION").into(),
            store: self.store().map(|status| status.to_string().into()),
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
        let status = if self.is_stopping() { 503 } else { 200 };
        // Texts and numbers always serialise.
        (status, "application/json", serde_json::to_string(&self.health()).unwrap_or_default())
    }
}

fn with_header(response: Response, name: &str, value: &str) -> Response {
    match Header::from_bytes(name, value) {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    }
}
