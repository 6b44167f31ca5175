//! The upgrade from polling to WebSocket (EIO "Upgrade"), as the server sees the new WebSocket.
//!
//! ```text
//!   client                     server
//!     2probe  ─────────────►   answer 3probe, release the held poll      Fresh → Probed
//!     (its polls end)
//!     5       ─────────────►   the session moves here                    Probed → done
//! ```
//! Any other packet closes this WebSocket only; the polling session continues.

use super::Packet;
use crate::proto::Error;

/// What the server does after a packet on a WebSocket that upgrades a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeStep {
    /// Answer `3probe`, and answer the session's open GET with a noop at once.
    AnswerProbe,
    /// Move the session to this WebSocket.
    TakeOver,
}

/// The state of an upgrading WebSocket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpgradeProbe {
    /// No packet yet.
    #[default]
    Fresh,
    /// `2probe` was answered.
    Probed,
}

impl UpgradeProbe {
    /// Takes the next packet.
    ///
    /// # Errors
    /// [`Error::ProbeExpected`] or [`Error::UpgradeExpected`]. The official server accepts `5` without a probe,
    /// but no client sends it.
    pub fn step(&mut self, packet: &Packet<'_>) -> Result<ProbeStep, Error> {
        match (*self, packet) {
            (Self::Fresh, Packet::Ping("probe")) => {
                *self = Self::Probed;
                Ok(ProbeStep::AnswerProbe)
            }
            (Self::Fresh, _) => Err(Error::ProbeExpected),
            (Self::Probed, Packet::Upgrade) => Ok(ProbeStep::TakeOver),
            (Self::Probed, _) => Err(Error::UpgradeExpected),
        }
    }
}
