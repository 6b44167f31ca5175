//! The server's process, as the harness sees it: started, killed, started again.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
};

use crate::{Failure, serve::Mutant};

/// How long a start may take, with all that has to be read back.
const UP_WITHIN: Duration = Duration::from_secs(15);

/// How long an end in good order may take.
const DOWN_WITHIN: Duration = Duration::from_secs(10);

/// How each server of a run is started.
pub(crate) struct Recipe {
    /// The same for all, so that clients find the next one where the last one was.
    pub(crate) port: u16,
    pub(crate) store: Option<PathBuf>,
    pub(crate) mutant: Option<Mutant>,
}

/// A server process. It does not outlive this.
pub(crate) struct Victim {
    child: Child,
    memory_bound: usize,
}

impl Recipe {
    /// Starts the process and does not wait.
    pub(crate) fn start(&self, life: u32) -> Result<Victim, Failure> {
        let store = self.store.as_ref().map_or("-".into(), |path| path.display().to_string());
        let mutant = self.mutant.map_or("-".into(), |mutant| format!("{mutant:?}"));
        let child = Command::new(std::env::current_exe()?)
            .args(["serve", &self.port.to_string(), &life.to_string(), &store, &mutant])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Victim { child, memory_bound: 0 })
    }
}

impl Victim {
    /// Waits until it listens.
    pub(crate) fn wait_up(&mut self) -> Result<(), Failure> {
        let Some(out) = self.child.stdout.take() else { return Ok(()) };
        let within = Timespec { tv_sec: UP_WITHIN.as_secs() as i64, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&within))? == 0 {
            return Err(format!("the server is not there after {UP_WITHIN:?}").into());
        }
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        self.memory_bound = line.trim().parse().map_err(|_| "the server ended before it was there")?;
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("the server has ended by itself, with {status}").into());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; it must end in good order.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        let pid = Pid::from_raw(self.child.id().try_into()?).ok_or("no process id")?;
        kill_process(pid, Signal::TERM)?;
        match self.wait_down()? {
            Some(status) if status.success() => Ok(()),
            status => Err(format!("after SIGTERM the server ends with {status:?}").into()),
        }
    }

    fn wait_down(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let deadline = Instant::now() + DOWN_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }

    /// # Errors
    /// Its memory was above what it promises.
    pub(crate) fn check_memory(&self) -> Result<usize, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak: usize = peak.and_then(|peak| peak.trim().strip_suffix(" kB")).ok_or("no VmHWM")?.parse()?;
        if peak * 1024 > self.memory_bound {
            return Err(format!("the server had {peak} KiB, above its bound of {}", self.memory_bound).into());
        }
        Ok(peak)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
