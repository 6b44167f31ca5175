//! The interactive client: a prompt, and the output above it.

use std::{
    io::{self, BufRead, IsTerminal},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, bounded};
use tinysio::chat::limits;

use super::{
    flags::Flags,
    screen::{Input, Screen, Terminal},
    script::{NO_ANSWER, REFUSED, WRONG},
    talk::{Talk, advice},
};
use crate::clients::{
    common::{colour::Palette, exit::Failure},
    line::Line,
    notice::Notice,
    pace::Pace,
    session::{Session, Show},
    stop::Stop,
};

/// How long confirmations are awaited at the end.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// How long the server's welcome is awaited before the first prompt.
const WELCOME_TIME: Duration = Duration::from_millis(300);

/// Lines of piped input that are read ahead. When the queue is full, the pipe waits.
const READ_AHEAD: usize = 16;

/// Runs until the user leaves.
pub(crate) fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    let palette = Palette::of_stdout(flags.connection.color);
    let screen = Screen::new(palette);
    let stop = Stop::default();
    screen.heed_signals(&stop)?;
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let terminal = is_terminal.then(|| Terminal::new(&screen)).flatten();
    let mut talk = Talk::new(flags, &stop, show(&screen, palette, terminal.is_some()))?;
    match terminal {
        Some(terminal) => converse(&mut talk, terminal, &stop),
        None => {
            let code = read_pipe(&mut talk, flags, &stop)?;
            if !is_terminal {
                return Ok(code);
            }
        }
    }
    Ok(typed(&talk))
}

/// A user sees a mistyped line and types it again.
fn typed(talk: &Talk) -> ExitCode {
    if talk.session.was_ever_connected() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The exit code for a script, with the codes of `emit` and `listen`. Call it before the session ends, because
/// then nothing is outstanding any more.
fn piped(talk: &Talk) -> ExitCode {
    let (session, tally) = (&talk.session, talk.session.tally());
    if !session.was_ever_connected() {
        ExitCode::FAILURE
    } else if talk.is_mistaken() {
        ExitCode::from(WRONG)
    } else if tally.refused > 0 {
        ExitCode::from(REFUSED)
    } else if tally.unconfirmed > 0 {
        ExitCode::FAILURE
    } else if session.outstanding() > 0 {
        if session.is_connected() { ExitCode::from(NO_ANSWER) } else { ExitCode::FAILURE }
    } else {
        ExitCode::SUCCESS
    }
}

fn show(screen: &Arc<Screen>, palette: Palette, interactive: bool) -> Show {
    let screen = screen.clone();
    Box::new(move |notice| {
        match notice {
            Notice::Connected { .. } => screen.set_connected(true),
            Notice::Disconnected(_) => screen.set_connected(false),
            _ => {}
        }
        let advice = advice(notice).filter(|_| interactive);
        for line in notice.lines().into_iter().chain(advice) {
            screen.print(line.signed(palette));
        }
    })
}

/// The prompt.
fn converse(talk: &mut Talk, mut terminal: Terminal, stop: &Stop) {
    if talk.session.first_connect() {
        talk.session.expect(0, WELCOME_TIME, |_| true);
        talk.session.say(&Line::info("Type 'help' to see available commands"));
    } else if !stop.is_set() {
        talk.hint();
    }
    while !stop.is_set() {
        match terminal.read() {
            Input::Line(line) if talk.execute(&line) => {}
            Input::Line(_) | Input::End => break,
        }
    }
    terminal.finish();
    if talk.session.is_connected() {
        talk.session.settle(LEAVE_TIME);
    }
    leave(&talk.session);
}

/// Commands from a pipe or a file. Everything is delivered and confirmed before the end, over any number of
/// reconnections.
fn read_pipe(talk: &mut Talk, flags: &Flags, stop: &Stop) -> Result<ExitCode, Failure> {
    if !talk.session.first_connect() {
        if !stop.is_set() {
            talk.hint();
        }
        if flags.max_attempts().is_some() {
            return Ok(piped(talk));
        }
    }
    let lines = read_lines(stop).map_err(|error| Failure::Failed(format!("cannot read: {error}")))?;
    let mut pace = Pace::new(limits::RATE);
    for line in lines.into_iter().map_while(|line| line) {
        pace.wait(stop);
        if stop.is_set() || !talk.execute(&line) {
            break;
        }
    }
    let session = &talk.session;
    while session.outstanding() > 0 && !session.is_at_rest() && !stop.is_set() {
        if !session.is_connected() {
            session.wait_connected(flags.connection.timeout);
        } else if session.settle(flags.connection.timeout) > 0 && session.is_connected() {
            break;
        }
    }
    let code = piped(talk);
    leave(session);
    Ok(code)
}

/// Disconnects, and reports what was not delivered.
fn leave(session: &Session) {
    let lost = session.outstanding();
    if lost > 0 {
        let events = if lost == 1 { "event was" } else { "events were" };
        session.say(&Line::warning(format!("{lost} {events} not confirmed")));
    }
    session.leave();
}

/// The lines of standard input; `None` at its end, and when the program should stop.
fn read_lines(stop: &Stop) -> io::Result<Receiver<Option<String>>> {
    let (sender, lines) = bounded(READ_AHEAD);
    let wake = sender.clone();
    // A full queue needs no wake-up: its reader checks by itself.
    stop.on_set(move || drop(wake.try_send(None)));
    thread::Builder::new().name("stdin".into()).spawn(move || {
        for line in io::stdin().lock().lines() {
            if sender.send(line.ok()).is_err() {
                return;
            }
        }
        let _ = sender.send(None);
    })?;
    Ok(lines)
}
