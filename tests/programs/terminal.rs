//! A program in a pseudo-terminal, with what its screen shows.

use std::{
    io::{Read, Write},
    num::NonZeroU16,
    process::Child,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use pty_process::{
    Size,
    blocking::{Command, Pty, open},
};

use crate::program::spawn;

/// How long anything may take. Generous: the machine may be busy.
const BOUND: Duration = Duration::from_secs(20);

const ROWS: NonZeroU16 = NonZeroU16::new(40).unwrap();
const COLUMNS: NonZeroU16 = NonZeroU16::new(90).unwrap();

/// The keys that send more than a character.
pub(crate) const UP: &str = "\x1b[A";
pub(crate) const LEFT: &str = "\x1b[D";
pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";

/// A terminal with a program in it. Dropping it ends the program.
pub(crate) struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    screen: Arc<(Mutex<vt100::Parser>, Condvar)>,
}

/// A colour of the terminal's palette.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Green,
    Blue,
    Magenta,
    None,
}

impl Terminal {
    pub(crate) fn start(program: &str, args: &[&str]) -> Self {
        Self::start_with(program, args, &[])
    }

    pub(crate) fn start_with(program: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let (pty, inside) = open().expect("a pseudo-terminal");
        pty.resize(Size::new(ROWS.get(), COLUMNS.get())).expect("its size");
        let command = Command::new(program).args(args).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let command = env.iter().fold(command, |command, (name, value)| command.env(name, value));
        let child = command.spawn(inside).expect("the program starts");
        let pty = Arc::new(pty);
        let screen = Arc::new((Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)), Condvar::new()));
        let (reader, its) = (pty.clone(), screen.clone());
        spawn("screen", move || {
            let mut bytes = [0; 4096];
            // The end of the program is the end of the file, or an error.
            while let Ok(length @ 1..) = (&*reader).read(&mut bytes) {
                its.0.lock().unwrap().process(&bytes[..length]);
                its.1.notify_all();
            }
        });
        Self { pty, child, screen }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Types.
    pub(crate) fn types(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Types a line and ends it.
    pub(crate) fn enters(&self, line: &str) {
        self.types(&format!("{line}\r"));
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    pub(crate) fn waits_until(&self, what: &str, is: impl Fn(&vt100::Screen) -> bool) {
        drop(self.screen_when(what, is));
    }

    /// The screen, still as it was when `is` was true of it.
    #[track_caller]
    fn screen_when(&self, what: &str, is: impl Fn(&vt100::Screen) -> bool) -> MutexGuard<'_, vt100::Parser> {
        let deadline = Instant::now() + BOUND;
        let mut parser = self.screen.0.lock().unwrap();
        while !is(parser.screen()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let screen = parser.screen().contents();
                drop(parser);
                panic!("waited {BOUND:?} for: {what}\n--- the screen\n{screen}\n---");
            }
            parser = self.screen.1.wait_timeout(parser, left).unwrap().0;
        }
        parser
    }

    /// Waits until a text is on the screen.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        self.waits_until(text, |screen| screen.contents().contains(text));
    }

    /// Waits until the line with the cursor is this, the cursor at its end unless `back` characters before it.
    #[track_caller]
    pub(crate) fn edits(&self, line: &str, back: u16) {
        self.waits_until(&format!("the line being edited is {line:?}, the cursor {back} back"), |screen| {
            let (row, column) = screen.cursor_position();
            let text = screen.rows(0, COLUMNS.get()).nth(row.into()).unwrap_or_default();
            text.trim_end() == line.trim_end() && usize::from(column + back) == line.chars().count()
        });
    }

    /// The colour of the first character of the last row that holds this text, once one does.
    pub(crate) fn colour_of(&self, text: &str) -> Colour {
        let parser = self.screen_when(text, |screen| screen.contents().contains(text));
        let screen = parser.screen();
        let rows: Vec<_> = screen.rows(0, COLUMNS.get()).collect();
        let row = rows.iter().rposition(|row| row.contains(text));
        let row = row.unwrap_or_else(|| panic!("{text:?} is not on the screen\n{}", screen.contents()));
        let before = rows[row].split(text).next().unwrap_or_default().chars().count();
        let cell = screen.cell(row as u16, before as u16).expect("a cell");
        match cell.fgcolor() {
            vt100::Color::Idx(1) => Colour::Red,
            vt100::Color::Idx(2) => Colour::Green,
            vt100::Color::Idx(4) => Colour::Blue,
            vt100::Color::Idx(5) => Colour::Magenta,
            vt100::Color::Default => Colour::None,
            other => panic!("{text:?} is {other:?}"),
        }
    }

    /// How often a text is on the screen.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.screen.0.lock().unwrap().screen().contents().matches(text).count()
    }

    /// Waits for the program's end.
    #[track_caller]
    pub(crate) fn exits(mut self, code: i32) {
        let deadline = Instant::now() + BOUND;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("its status") {
                let screen = self.screen.0.lock().unwrap().screen().contents();
                assert_eq!(status.code(), Some(code), "{status}\n--- the screen\n{screen}\n---");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let screen = self.screen.0.lock().unwrap().screen().contents();
        panic!("the program did not end within {BOUND:?}\n--- the screen\n{screen}\n---");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
