//! Waiting for a condition, bounded and interruptible. The only place of this module that sleeps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::error::{Error, Result};

/// The one patience with anything that should happen by itself soon.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at first; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks whatever is under way to give up. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Error::Interrupted`] once asked to stop.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

/// Looks until `done` gives something, for at most `patience`; `None` when that is over.
///
/// # Errors
/// `done`'s own, at once, and [`Error::Interrupted`].
pub fn poll<T>(
    patience: Duration,
    stop: &Stop,
    mut done: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(value) = done()? {
            return Ok(Some(value));
        }
        stop.check()?;
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_after_its_patience_and_at_once_when_stopped() {
        let never = || Ok(None::<()>);
        let short = Duration::from_millis(20);
        assert!(poll(short, &Stop::default(), never).unwrap().is_none());
        let stop = Stop::default();
        stop.stop();
        let stopped = poll(PATIENCE, &stop, never);
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
}
