//! Work that ends when nobody waits for it any more.
//!
//! Whatever takes time in proportion to the data or to what a request says looks, step by step, whether it is still
//! wanted: each block of a scan, each payload that a filter is asked about, each few words of a text. It looks where it
//! holds no lock, since a look may also let others have the processor first, for as long as they need.

/// Nobody waits for the work any more, so that it has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("given up: nobody waits for it any more")]
pub struct Cancelled;

/// Says whether a piece of work is still wanted.
pub trait Cancel {
    /// To be asked after every step, without any lock held.
    ///
    /// # Errors
    ///
    /// Once nobody waits for the work: it ends there, without a result.
    fn check(&self) -> Result<(), Cancelled>;
}

/// Of work that somebody waits for until it is done.
#[derive(Clone, Copy, Debug)]
pub struct Never;

impl Cancel for Never {
    fn check(&self) -> Result<(), Cancelled> {
        Ok(())
    }
}

/// Gives up at its `n`th look.
#[cfg(test)]
pub(crate) struct AtLook {
    left: std::cell::Cell<usize>,
}

#[cfg(test)]
impl AtLook {
    pub(crate) fn new(n: usize) -> Self {
        AtLook { left: n.into() }
    }

    /// Looks that were left when the work ended.
    pub(crate) fn left(&self) -> usize {
        self.left.get()
    }
}

#[cfg(test)]
impl Cancel for AtLook {
    fn check(&self) -> Result<(), Cancelled> {
        let left = self.left.get().checked_sub(1).ok_or(Cancelled)?;
        self.left.set(left);
        if left == 0 { Err(Cancelled) } else { Ok(()) }
    }
}
