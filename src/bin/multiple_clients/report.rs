//! The statistics at the end.

use std::time::Duration;

use serde::Serialize;

use super::{cast::Actor, scenes::Played};
use crate::clients::{
    common::exit::Failure,
    figures::{Table, milliseconds},
    stage::{Stage, write_line},
};

/// The statistics of all clients.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    url: String,
    scenes: Vec<Scene>,
    clients: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Scene {
    title: &'static str,
    good: bool,
}

/// One client. Times in milliseconds; `None`: not measured.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    status: &'static str,
    sent: u64,
    received: u64,
    confirmed: u64,
    reconnections: u64,
    connect_ms: Option<f64>,
    round_trip_p50_ms: Option<f64>,
    round_trip_p99_ms: Option<f64>,
    messages_per_second: Option<f64>,
    error_count: u64,
    /// Each text once.
    errors: Vec<String>,
}

impl Report {
    /// The statistics while the clients are still connected.
    pub(crate) fn of(cast: &[Actor], url: &str, scenes: &[Played]) -> Self {
        let scene = |played: &Played| Scene { title: played.title, good: played.good };
        Self {
            url: url.to_owned(),
            scenes: scenes.iter().map(scene).collect(),
            clients: cast.iter().map(Row::of).collect(),
        }
    }

    /// Prints a table, or JSON if the output is for machines.
    pub(crate) fn print(&self, stage: &Stage) -> Result<(), Failure> {
        if stage.quiet {
            let json = serde_json::to_string(self).map_err(|error| Failure::Failed(error.to_string()))?;
            // Output may be closed.
            let _ = write_line(&json);
            return Ok(());
        }
        stage.heading("Results");
        stage.plain(self.table().to_string());
        for client in self.clients.iter().filter(|client| !client.errors.is_empty()) {
            for error in &client.errors {
                stage.bad(format!("[{}] {error}", client.name));
            }
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "client",
            "status",
            "sent",
            "received",
            "confirmed",
            "errors",
            "reconnections",
            "connect",
            "p50",
            "p99",
            "messages/s",
        ])
        .left(1);
        for client in &self.clients {
            let time = |ms: Option<f64>| milliseconds(ms.map(|ms| Duration::from_secs_f64(ms / 1_000.0)));
            table.row(vec![
                client.name.clone(),
                client.status.to_owned(),
                client.sent.to_string(),
                client.received.to_string(),
                client.confirmed.to_string(),
                client.error_count.to_string(),
                client.reconnections.to_string(),
                time(client.connect_ms),
                time(client.round_trip_p50_ms),
                time(client.round_trip_p99_ms),
                client.messages_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
            ]);
        }
        table
    }
}

impl Row {
    fn of(actor: &Actor) -> Self {
        let (tally, stats) = (actor.session.tally(), actor.session.client().stats());
        let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1_000.0);
        let active = actor.active.lock().map(|(first, last)| (last - first).as_secs_f64());
        let rate = active.filter(|time| *time > 0.0).map(|time| tally.sent as f64 / time);
        Self {
            name: actor.name.clone(),
            status: match (actor.is_present(), actor.session.is_connected()) {
                (_, true) => "connected",
                (true, false) => "lost",
                (false, false) => "failed",
            },
            sent: tally.sent,
            received: tally.received,
            confirmed: tally.acknowledged,
            reconnections: stats.reconnects,
            connect_ms: ms(stats.connect_time),
            round_trip_p50_ms: ms(tally.round_trips.percentile(50)),
            round_trip_p99_ms: ms(tally.round_trips.percentile(99)),
            messages_per_second: rate,
            error_count: tally.errors,
            errors: tally.distinct_errors.into_iter().collect(),
        }
    }
}
