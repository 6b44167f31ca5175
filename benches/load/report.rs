//! What a run has to say.

use std::{fs, time::Duration};

use super::{Result, options::Options};

/// Kernel ticks a second in `/proc`, on every Linux.
const TICKS: f64 = 100.0;

/// Processor time, from here on.
#[derive(Debug)]
pub(crate) struct Meter {
    server: Option<f64>,
    own: f64,
}

impl Meter {
    pub(crate) fn start(server: Option<u32>) -> Self {
        Self { server: server.and_then(|pid| cpu(&pid.to_string())), own: cpu("self").unwrap_or_default() }
    }

    /// One line of JSON. The latencies are in tenths of microseconds.
    pub(crate) fn stop(
        self,
        options: &Options,
        count: u64,
        took: Duration,
        mut latencies: Vec<u32>,
    ) -> Result<String> {
        let server = match (self.server, options.pid) {
            (Some(before), Some(pid)) => {
                format!("{:.2}", cpu(&pid.to_string()).ok_or("the server is gone")? - before)
            }
            _ => "null".into(),
        };
        let own = cpu("self").unwrap_or_default() - self.own;
        latencies.sort_unstable();
        let percentile = |p: f64| {
            let index = (latencies.len() as f64 * p) as usize;
            f64::from(latencies.get(index).or(latencies.last()).copied().unwrap_or_default()) / 10.0
        };
        let seconds = took.as_secs_f64();
        Ok(format!(
            r#"{{"mode":"{}","connections":{},"window":{},"size":{},"count":{count},"seconds":{seconds:.3},"rate":{:.0},"p50_us":{:.1},"p99_us":{:.1},"server_cpu":{server},"own_cpu":{own:.2}}}"#,
            options.mode.name(),
            options.connections,
            options.window,
            options.size,
            count as f64 / seconds,
            percentile(0.5),
            percentile(0.99),
        ))
    }
}

/// Seconds of processor time, user's and system's, that a process has used.
fn cpu(process: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let fields = stat.rsplit_once(')')?.1;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / TICKS)
}
