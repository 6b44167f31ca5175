//! A session, as the drain thread sees it.

use std::sync::Arc;

use crate::server::{
    session::Session,
    session::drain::DrainClient,
    transport::outbox::{Outbox, Pushed},
};

impl DrainClient for Session {
    fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn settle(self: &Arc<Self>, pushed: Pushed) -> bool {
        Self::settle(self, pushed).is_ok()
    }
}
