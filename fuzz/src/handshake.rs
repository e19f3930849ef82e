//! Everything that is decided about who goes on where, and who is what; the first byte says which.

use crate::input::Input;
use crate::{commands, decision, master_session, replica_session};

/// The first byte says what the rest is.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() % 4 {
        0 => decision::run(input),
        1 => commands::run(input),
        2 => master_session::run(input),
        _ => replica_session::run(input),
    }
}
