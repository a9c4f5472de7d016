//! Streams, terminals, attach and the CRI log writer.
