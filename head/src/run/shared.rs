//! What all sets of settings of a run share.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::{
    config::Outputs,
    demand::Demand,
    report::{RunState, Totals},
    shutdown::Shutdown,
};

/// What all sets of settings of a run share.
pub(super) struct Shared {
    pub(super) shutdown: Shutdown,
    pub(super) totals: Arc<Totals>,
    pub(super) state: Arc<RunState>,
    pub(super) demand: Demand,
    /// Where answers go at present.
    outputs: Mutex<Option<Outputs>>,
    /// Whether the run has opened everything once.
    is_ready: AtomicBool,
    /// The watts that computing adds, and the rails by which they were measured.
    watts: OnceLock<Option<(f64, String)>>,
}

impl Shared {
    /// What the settings of a run share that counts in `totals`.
    pub(super) fn new(shutdown: Shutdown, totals: Arc<Totals>) -> Self {
        let state = Arc::new(RunState::new(Arc::clone(&totals)));
        let (demand, outputs) = (Demand::default(), Mutex::default());
        Shared {
            shutdown,
            totals,
            state,
            demand,
            outputs,
            is_ready: AtomicBool::new(false),
            watts: OnceLock::new(),
        }
    }

    /// The watts that computing adds, and the rails by which they were measured, which is done before the first frame: later
    /// the device is never idle.
    pub(super) fn watts(&self, measure: impl FnOnce() -> Option<(f64, String)>) -> Option<(f64, String)> {
        match self.is_ready() {
            true => self.watts.get().cloned().flatten(),
            false => self.watts.get_or_init(measure).clone(),
        }
    }

    /// Whether the run has opened everything once.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    /// Where answers go at present; `None` before sinks are open.
    pub(super) fn outputs(&self) -> Option<Outputs> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note that everything is open, and where answers go.
    pub(super) fn note_open(&self, outputs: &Outputs) {
        *self.outputs.lock().unwrap_or_else(PoisonError::into_inner) = Some(outputs.clone());
        self.is_ready.store(true, Relaxed);
    }
}
