//! The supervisor of one microVM, on the host.
//!
//! ```text
//!  rpc ──► machine (one task, owns the VM): QEMU, network, layers, scratch disk
//!   │         ├─ vmm ──exec──► QEMU, in a root, a cgroup and as a user of its own
//!   │         ├─ events: the guest's containers ──► journal, exits on disk
//!   │         └─ logs: the guest's records ──► log files
//!   └────► relay ──► HTTP/2 on QEMU's control port ──► the guest's auraed
//! ```
//! What a guest says is untrusted: it names containers and sends records, never paths, and every length and count of it has a bound.

mod command;
#[cfg(test)]
mod double_test;
pub mod errors;
pub mod events;
pub mod launch;
mod layers;
pub mod logs;
pub mod machine;
pub mod network;
pub mod relay;
mod scratch;
pub mod spec;
pub mod tail;
pub mod vmm;

pub use command::main;
