//! The terminal: one line in the editor, and all output above it.
//!
//! ```text
//!            print, no edit ──────────────────────────────────► standard output
//!            print, during an edit ──► queue ──► printer thread ──► rustyline, above the prompt
//!   new prompt, during an edit ──► SIGINT to ourselves ──► the edit restarts with the same text
//! ```
//! rustyline cannot change the prompt during an edit. When the connection comes or goes, the edit is therefore
//! interrupted, erased, and restarted with the new prompt, the same text and cursor. Lock order: `handing`
//! before `inner`; `typed` alone.

use std::{
    borrow::Cow,
    collections::VecDeque,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Signal, getpid, kill_process};
use rustyline::{
    ColorMode, Config, Context, Editor, ExternalPrinter, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::{CmdKind, Highlighter},
    hint::Hinter,
    history::MemHistory,
    validate::Validator,
};
use unicode_width::UnicodeWidthStr;

use super::command::COMMANDS;
use crate::clients::{common::colour::Palette, common::exit::Failure, stop::Stop};

/// Lines that may wait for the printer thread. When the queue is full, the printing thread waits, so messages
/// are read as fast as the terminal shows them.
const MAX_QUEUE: usize = 1_000;

/// How often a signal is repeated that came while no edit could take it.
const REPEAT: Duration = Duration::from_millis(20);

/// How long giving a line to rustyline takes at most, unless its own queue is full.
const HANDING_TIME: Duration = Duration::from_millis(50);

/// A line without visible effect: up to the printed line, and down again.
const NOTHING: &str = "\x1b[A\n";

/// A result of reading a line.
#[derive(Debug)]
pub(crate) enum Input {
    Line(String),
    /// Ctrl-C, Ctrl-D, or a signal.
    End,
}

/// The terminal's output, shared by all threads that print.
pub(crate) struct Screen {
    palette: Palette,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Held while a line is given to rustyline. Outside of an edit rustyline prints at once, which must not
    /// happen between the interruption and the erasing of an edit.
    handing: Mutex<()>,
    /// The edited line and the cursor, as of the last key.
    typed: Mutex<(String, usize)>,
}

#[derive(Default)]
struct Inner {
    editing: bool,
    connected: bool,
    /// The prompt on the screen differs from `connected`.
    stale: bool,
    /// The program should end.
    stopping: bool,
    queue: VecDeque<String>,
    /// Given to rustyline, and perhaps not printed yet.
    in_flight: Option<String>,
}

impl Screen {
    pub(crate) fn new(palette: Palette) -> Arc<Self> {
        Arc::new(Self {
            palette,
            inner: Mutex::default(),
            changed: Condvar::new(),
            handing: Mutex::default(),
            typed: Mutex::default(),
        })
    }

    /// Prints a line, above the edited one if there is one.
    pub(crate) fn print(&self, line: String) {
        let mut inner = self.inner.lock();
        while inner.editing && inner.queue.len() >= MAX_QUEUE {
            self.changed.wait(&mut inner);
        }
        inner.queue.push_back(line);
        if inner.editing {
            self.changed.notify_all();
        } else {
            inner.write_out();
        }
    }

    /// Updates the prompt after a connect or disconnect.
    pub(crate) fn set_connected(&self, connected: bool) {
        // The printer thread may hold the lock because rustyline's queue is full. Then it prints nothing
        // outside of an edit, and there is no need to wait for it.
        let _handing = self.handing.try_lock_for(HANDING_TIME);
        let mut inner = self.inner.lock();
        let changed = inner.connected != connected;
        inner.connected = connected;
        if changed && inner.editing {
            inner.stale = true;
            drop(inner);
            interrupt_ourselves();
        }
    }

    /// Ends an edit when `stop` is set, and repeats signals that came between two edits.
    pub(crate) fn heed_signals(self: &Arc<Self>, stop: &Stop) -> Result<(), Failure> {
        let (screen, wish) = (self.clone(), stop.clone());
        crate::clients::common::signals::handle(move || {
            if !screen.wants_interruption() {
                screen.inner.lock().stopping = true;
                wish.set();
            }
            while screen.wants_interruption() {
                interrupt_ourselves();
                std::thread::sleep(REPEAT);
            }
        })
    }

    fn wants_interruption(&self) -> bool {
        let inner = self.inner.lock();
        inner.editing && (inner.stale || inner.stopping)
    }

    fn prompt(&self, connected: bool) -> (&'static str, String) {
        const CONNECTED: &str = ">>> ";
        const DISCONNECTED: &str = "DISCONNECTED >>> ";
        match connected {
            true => (CONNECTED, self.palette.green(CONNECTED).to_string()),
            false => (DISCONNECTED, self.palette.red(DISCONNECTED).to_string()),
        }
    }

    /// The printer thread: gives the waiting lines to rustyline, until the end.
    fn hand_over(&self, mut printer: impl ExternalPrinter) {
        loop {
            let mut inner = self.inner.lock();
            while !inner.wants_handing() {
                self.changed.wait(&mut inner);
            }
            drop(inner);
            let _handing = self.handing.lock();
            let mut inner = self.inner.lock();
            if !inner.wants_handing() {
                continue;
            }
            let batch: String = inner.queue.drain(..).flat_map(|line| [line, "\n".to_owned()]).collect();
            self.changed.notify_all();
            inner.in_flight = Some(batch.clone());
            drop(inner);
            // The second call returns when rustyline has taken the first line, because its queue holds one.
            if printer.print(batch).and_then(|()| printer.print(NOTHING.into())).is_err() {
                return;
            }
            self.inner.lock().in_flight = None;
            self.changed.notify_all();
        }
    }

    /// No edit follows: prints the lines that rustyline has not taken.
    pub(crate) fn finish(&self) {
        let mut inner = self.inner.lock();
        let deadline = Instant::now() + HANDING_TIME;
        while inner.in_flight.is_some() {
            if self.changed.wait_until(&mut inner, deadline).timed_out() {
                break;
            }
        }
        if let Some(batch) = inner.in_flight.take() {
            let line = batch.trim_end_matches('\n').to_owned();
            inner.queue.push_front(line);
        }
        inner.write_out();
    }
}

impl Inner {
    fn wants_handing(&self) -> bool {
        self.editing && !self.stale && !self.queue.is_empty()
    }

    /// Output may be closed; that cannot be repaired.
    fn write_out(&mut self) {
        let mut out = io::stdout().lock();
        for line in self.queue.drain(..) {
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
    }
}

/// The signal that ends an edit of rustyline.
fn interrupt_ourselves() {
    // A process may always signal itself.
    let _ = kill_process(getpid(), Signal::INT);
}

/// The line editor.
pub(crate) struct Terminal {
    screen: Arc<Screen>,
    editor: Editor<Typed, MemHistory>,
}

impl Terminal {
    /// `None`: there is no terminal, or it cannot edit.
    pub(crate) fn new(screen: &Arc<Screen>) -> Option<Self> {
        let config = Config::builder().color_mode(ColorMode::Forced).auto_add_history(false).build();
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).ok()?;
        editor.set_helper(Some(Typed(screen.clone())));
        let printer = editor.create_external_printer().ok()?;
        let its = screen.clone();
        std::thread::Builder::new().name("printer".into()).spawn(move || its.hand_over(printer)).ok()?;
        Some(Self { screen: screen.clone(), editor })
    }

    /// Reads a line.
    pub(crate) fn read(&mut self) -> Input {
        let mut typed = (String::new(), 0);
        loop {
            let Some((raw, styled)) = self.begin_edit(&typed) else { return Input::End };
            let (left, right) = typed.0.split_at(typed.1);
            let result = self.editor.readline_with_initial(&(raw, styled), (left, right));
            let again = self.end_edit(raw, matches!(result, Err(ReadlineError::Interrupted)));
            match (again, result) {
                (Some(so_far), _) => typed = so_far,
                (None, Ok(line)) => {
                    let _ = self.editor.add_history_entry(&line);
                    return Input::Line(line);
                }
                (None, Err(_)) => return Input::End,
            }
        }
    }

    /// Stops reading.
    pub(crate) fn finish(self) {
        self.screen.finish();
    }

    /// The prompt for the next edit. `None`: the program should end.
    fn begin_edit(&self, typed: &(String, usize)) -> Option<(&'static str, String)> {
        self.screen.typed.lock().clone_from(typed);
        let mut inner = self.screen.inner.lock();
        inner.write_out();
        if inner.stopping {
            return None;
        }
        (inner.editing, inner.stale) = (true, false);
        Some(self.screen.prompt(inner.connected))
    }

    /// Erases an edit that was interrupted for a new prompt, and returns its text.
    fn end_edit(&mut self, prompt: &str, interrupted: bool) -> Option<(String, usize)> {
        let columns = self.editor.dimensions().map_or(80, |(columns, _)| usize::from(columns.max(1)));
        let mut inner = self.screen.inner.lock();
        inner.editing = false;
        let again = interrupted && inner.stale && !inner.stopping;
        let typed = again.then(|| self.screen.typed.lock().clone());
        if let Some((line, _)) = &typed {
            let rows = (prompt.width() + line.width()) / columns + 1;
            let _ = write!(io::stdout(), "\x1b[{rows}A\r\x1b[J");
        }
        inner.write_out();
        self.screen.changed.notify_all();
        typed
    }
}

/// Receives changes of the text from the editor, and completes command names.
struct Typed(Arc<Screen>);

impl Typed {
    fn note(&self, line: &str, cursor: usize) {
        let mut typed = self.0.typed.lock();
        line.clone_into(&mut typed.0);
        typed.1 = cursor;
    }
}

impl Helper for Typed {}

impl Validator for Typed {}

impl Hinter for Typed {
    type Hint = String;

    /// Called when the text has changed.
    fn hint(&self, line: &str, cursor: usize, _: &Context<'_>) -> Option<String> {
        self.note(line, cursor);
        None
    }
}

impl Highlighter for Typed {
    /// Called also when only the cursor has moved.
    fn highlight_char(&self, line: &str, cursor: usize, _: CmdKind) -> bool {
        self.note(line, cursor);
        false
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Completer for Typed {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let word = line[..cursor].to_lowercase();
        let fits = COMMANDS.iter().filter(|(name, ..)| name.starts_with(&word));
        Ok((0, fits.map(|(name, ..)| format!("{name} ")).collect()))
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("palette", &self.palette).finish_non_exhaustive()
    }
}
