//! What becomes of a call of a handler, on both sides: what it may return, and what its panic said.

use std::{
    any::Any,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What a handler may return: nothing, or a result, whose error is logged (at `warn`, with the event's name).
pub trait Outcome {
    /// `Err` with the text to be logged.
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

/// What a handler may return whose `?` meets errors of several types, in its signature or behind its last `Ok`:
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

/// Runs user code.
///
/// # Errors
/// What its panic said.
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let text = message(&*panic);
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            // The value that was thrown panics when it is dropped; so may this one.
            std::mem::forget(another);
        }
        text
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    // It may quote the peer, who must not write lines of its own.
    text.map_or_else(|| "(no text)".to_owned(), |text| text.escape_debug().to_string())
}
