//! What handlers may return, on both sides.

use std::fmt;

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
