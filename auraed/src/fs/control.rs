//! What `auraed vm` and its server of volumes say to each other: one JSON object per line, on a stream socket.
//!
//! The server says `Ready` when its sandbox is closed. Then each order is answered by `Done` or `Failed`; `Ended` may come at any time
//! and is the last.

use serde::{Deserialize, Serialize};

use super::volumes::Slot;

/// To the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Serve what was mounted in the slot's directory.
    Add {
        /// Free.
        slot: Slot,
        /// As the guest sees it.
        name: String,
    },
    /// Serve these no more and close everything of them. A free slot is success.
    Remove {
        /// Which.
        slots: Vec<Slot>,
    },
}

/// From the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Orders are welcome.
    Ready,
    /// The order was carried out.
    Done,
    /// It could not be.
    Failed {
        /// Why.
        reason: String,
    },
    /// No more requests of the guest are answered, and no orders.
    Ended {
        /// Why.
        reason: String,
    },
}

/// One line with its newline.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    // These types have nothing that JSON cannot express.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Directory of a slot in the server's root.
pub fn directory(slot: Slot) -> String {
    format!("/{slot}")
}
