//! A machine that is saved before it is anybody's. Each pod that is started from it goes on from here.

use std::fs;
use std::io;

use tokio::io::AsyncReadExt;

use super::port::Port;
use crate::rpc::RESTORED;

const COMMAND_LINE: &str = "/proc/cmdline";
/// How the machine is told that it will be saved.
const ARGUMENT: &str = "aurae.template";

/// Whether this machine is, or was, to be saved.
pub fn is_one() -> io::Result<bool> {
    Ok(names_template(&fs::read_to_string(COMMAND_LINE)?))
}

fn names_template(command_line: &str) -> bool {
    command_line.split_whitespace().any(|argument| argument == ARGUMENT)
}

/// Waits until somebody is there who wants a pod. Until then we are all the same: nothing may be drawn here that has to be unique.
pub async fn wait_to_be_restored(port: &mut Port) -> io::Result<()> {
    println!("auraed init: waits to be restored");
    match port.read_u8().await? {
        RESTORED => Ok(()),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the host began with {other:#04x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_word_makes_a_template() {
        assert!(names_template("console=ttyS0 aurae.template quiet\n"));
        for other in ["", "aurae.templates", "x=aurae.template", "aurae.template=1"] {
            assert!(!names_template(other), "{other}");
        }
    }
}
