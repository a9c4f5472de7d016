//! Bytes between a container's process and the outside: pipes and terminals, CRI log files, attached clients.

pub mod cri_log;
pub mod log_file;
pub mod log_relay;
pub mod log_sink;
pub mod pump;
pub mod stdin;
pub mod stdio;
pub mod terminal;
pub mod timestamp;
