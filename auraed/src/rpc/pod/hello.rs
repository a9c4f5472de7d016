//! Hello: versions and feature bits.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::errors::PodError;
use crate::rpc::CONTRACT_VERSION;

/// What this auraed can do beyond the contract's first version.
const FEATURES: [&str; 0] = [];

pub async fn serve(_pod: &Pod, _request: api::HelloRequest) -> Result<api::HelloResponse, PodError> {
    Ok(api::HelloResponse {
        contract_version: CONTRACT_VERSION,
        features: FEATURES.map(str::to_owned).to_vec(),
        auraed_version: crate::VERSION.to_owned(),
        pid: std::process::id().cast_signed(),
    })
}
