//! Who streams. The allocator keeps what a crowd of clients has needed; it is given back when the last of them has gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::sys::process;

/// For the buffers of the call, which end after the session; and a pause between two sessions is none.
const PAUSE: Duration = Duration::from_secs(1);

/// Counted by who holds it: the pod, and each session for a while longer than it lasts.
#[derive(Clone, Default)]
pub struct Sessions(Arc<()>);

impl Sessions {
    /// Runs a session on a task of its own.
    pub fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let held = Arc::clone(&self.0);
        tokio::spawn(async move {
            session.await;
            sleep(PAUSE).await;
            if Arc::strong_count(&held) == 2 {
                process::trim_heap();
            }
        });
    }
}
