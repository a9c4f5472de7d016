//! New namespaces of the calling thread, set up: all kinds but user namespaces.
//!
//! Auraed makes those of most pods in a thread that ends afterwards; what they are pinned by keeps them.

use std::fs;
use std::io;
use std::thread;

use tokio::sync::oneshot;

use super::reaper::Plan;
use crate::helper::{Failure, Step};
use crate::sys::namespace::{self, Kinds};

/// Of the thread that asks.
pub const OF_THREAD: &str = "/proc/thread-self/ns";
const STACK_BYTES: usize = 128 * 1024;

/// Makes them, with everything that is set inside.
pub fn make(plan: &Plan) -> Result<(), Failure> {
    let kinds = Kinds { user: false, network: plan.network, ipc: plan.ipc, uts: plan.uts, pid: plan.pid };
    namespace::make(kinds).step("make the namespaces")?;
    if plan.network {
        namespace::loopback_up().step("set the loopback interface up")?;
    }
    if plan.uts && !plan.hostname.is_empty() {
        namespace::set_hostname(&plan.hostname).step("set the hostname")?;
    }
    for (path, value) in &plan.sysctls {
        fs::write(path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
            .step("write a sysctl")?;
    }
    Ok(())
}

/// The result of `work`, done by a thread whose namespaces die with it.
pub async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (sender, result) = oneshot::channel();
    // Nobody to hear the result: whoever asked has given up.
    thread::Builder::new().name("namespaces".to_owned()).stack_size(STACK_BYTES).spawn(move || drop(sender.send(work())))?;
    result.await.map_err(io::Error::other)
}
