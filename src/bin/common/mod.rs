//! What the programs have in common.

pub(crate) mod colour;
pub(crate) mod exit;
pub(crate) mod logging;
pub(crate) mod visible;
