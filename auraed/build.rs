//! Generates the Rust side of the contracts under `api/aurae`. protox compiles them, so no `protoc` is needed.

use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let api = Path::new("../api");
    let mut protos = Vec::new();
    collect(&api.join("aurae"), &mut protos)?;
    protos.sort();
    let descriptors = protox::compile(&protos, [api])?;
    println!("cargo:rerun-if-changed={}", api.join("aurae").display());
    tonic_prost_build::configure().build_client(true).bytes(".").emit_rerun_if_changed(false).compile_fds(descriptors)?;
    Ok(())
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            println!("cargo:rerun-if-changed={}", path.display());
            into.push(path);
        }
    }
    Ok(())
}
