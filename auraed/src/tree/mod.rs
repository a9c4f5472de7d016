//! Whole directory trees, handled by descriptor: no link is followed and no path is resolved twice, so nothing outside a
//! tree is read, changed or removed even while somebody rearranges it.

mod copy;
mod remove;

pub use copy::copy;
pub use remove::{RemoveError, remove, remove_checked};

/// Directories nested deeper than this are not copied; each level holds a descriptor open.
pub const MAX_DEPTH: usize = 200;
