//! The one binary: see the library's crate guide.

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    auraed::run(&program, args.collect())
}
