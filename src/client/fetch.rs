//! One plain HTTP request to the server, for what it serves beside Socket.IO: its health.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Builder, Error, Step,
    dial::Dialer,
    http::Lane,
    url::Endpoint,
    wake::{Lifeline, from_now},
};
use crate::proto::engine::TransportKind;

/// What a server answered to [`Builder::fetch`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most as long as [`Builder::max_message`].
    pub body: Bytes,
}

impl Builder {
    /// GETs `target`, like `/health`, from the server that the URL names, the way the client would reach it: with its
    /// headers, its certificate authorities, through a Unix-domain socket. Redirects are not followed. Takes at most
    /// `timeout`.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unreachable`], [`Error::Timeout`], [`Error::Closed`] without descriptors.
    pub fn fetch(&self, target: &str, timeout: Duration) -> Result<Answer, Error> {
        let config = &self.config;
        config.validate()?;
        let endpoint = Endpoint::new(&self.url, &config.path, &[])?;
        let dialer = Dialer {
            #[cfg(feature = "tls")]
            tls: endpoint.secure.then(|| super::tls::config(&config.ca)).transpose()?,
            endpoint: Arc::new(endpoint),
        };
        let lifeline = Lifeline::new().map(Arc::new).map_err(|error| Error::Unreachable {
            transport: TransportKind::Polling,
            step: Step::Connect,
            detail: error.to_string().into(),
        })?;
        let reply = Lane::new(&dialer, config, &lifeline, true).get(target, Some(from_now(timeout)))?;
        Ok(Answer { status: reply.status, body: reply.body })
    }
}
