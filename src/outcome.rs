//! What a handler may return, and how its panic is caught: for server and client. It must not log.

use std::{
    any::Any,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What a handler may return: nothing, or a result whose error is logged (at `warn`, with the event's name).
pub trait Outcome {
    /// `Err` with the text for the log.
    ///
    /// # Errors
    /// When the handler failed.
    fn into_result(self) -> Result<(), String>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: fmt::Display> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// The return type of a handler that uses `?` on errors of several types:
///
/// ```
/// use tinysio::{HandlerResult, Server};
///
/// let builder = Server::builder().namespace("/", |ns| {
///     ns.on("double", |socket, event| -> HandlerResult {
///         let number: i32 = event.arg::<String>(0)?.parse()?;
///         socket.emit("doubled", number * 2)?;
///         Ok(())
///     });
/// });
/// # drop(builder);
/// ```
pub type HandlerResult = Result<(), Box<dyn Error>>;

/// Runs the user's code.
///
/// # Errors
/// The text of its panic.
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let text = message(&*panic);
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            // Dropping the panic's value has panicked; dropping this one may panic too.
            std::mem::forget(another);
        }
        text
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    // It may quote the peer, which must not add lines to the log.
    text.map_or_else(|| "(no text)".to_owned(), |text| text.escape_debug().to_string())
}
