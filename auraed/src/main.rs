//! The one binary: see the library's crate guide.

fn main() -> std::process::ExitCode {
    auraed::run(std::env::args_os().skip(1).collect())
}
