//! What a source can tell when all is over (FET-70).

use std::sync::Arc;

use super::engine::Shared;

/// Bytes that came, and what went wrong on the way; stays when the source is gone. Cheap to clone.
#[derive(Clone, Default)]
pub struct Told {
    http: Option<Arc<Shared>>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").field("received", &self.received()).finish_non_exhaustive()
    }
}

impl Told {
    pub(super) fn of(http: Arc<Shared>) -> Self {
        Told { http: Some(http) }
    }

    /// Bytes that came over the wire, the head's included, whether they were wanted or not; those of bodies. `None` for what is no network.
    pub fn received(&self) -> Option<u64> {
        self.http.as_ref().map(|http| http.received())
    }

    /// Ends a source that is being fetched: whoever waits for it gets an error, soon, and nobody is asked any more. For signals; from any
    /// thread, and more than once.
    pub fn hang_up(&self) {
        if let Some(http) = &self.http {
            http.close();
        }
    }

    /// What went wrong with whom, and stopped nothing, for a person.
    pub fn notes(&self) -> Vec<String> {
        self.http.as_ref().map(|http| http.lock().mirrors.notes()).unwrap_or_default()
    }
}
