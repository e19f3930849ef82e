//! Names of the moments between which a crash may fall, for the tests: they look at the directory at each of them.

#[cfg(test)]
type Watch = Box<dyn FnMut(&'static str)>;

#[cfg(test)]
thread_local! {
    static WATCH: std::cell::RefCell<Option<Watch>> = const { std::cell::RefCell::new(None) };
}

/// Says that a step is done.
#[cfg(test)]
pub(crate) fn reached(step: &'static str) {
    // What it does itself is not watched.
    if let Some(mut watch) = WATCH.take() {
        watch(step);
        WATCH.set(Some(watch));
    }
}

/// Says that a step is done.
#[cfg(not(test))]
pub(crate) fn reached(_step: &'static str) {}

/// Calls `watch` at each step that `work` does on this thread.
#[cfg(test)]
pub(crate) fn watched<T>(watch: impl FnMut(&'static str) + 'static, work: impl FnOnce() -> T) -> T {
    WATCH.set(Some(Box::new(watch)));
    let result = work();
    WATCH.set(None);
    result
}
