//! ExecSync.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::container::Request;
use crate::pod::errors::PodError;
use crate::pod::exec;
use crate::rpc::convert::container_id;
use std::sync::Arc;

pub async fn serve(pod: &Pod, request: api::ExecSyncRequest) -> Result<api::ExecSyncResponse, PodError> {
    let id = container_id(request.container_id)?;
    let live = pod.ask(&id, Request::Live).await?;
    let limit = usize::try_from(request.output_limit_bytes).unwrap_or(usize::MAX);
    let output = exec::run_sync(Arc::clone(pod.shared()), live, request.command, request.timeout_ms, limit).await?;
    Ok(api::ExecSyncResponse { stdout: output.stdout.into(), stderr: output.stderr.into(), exit_code: output.exit_code })
}
