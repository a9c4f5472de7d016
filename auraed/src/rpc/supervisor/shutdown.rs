//! Shutdown.

use crate::api::supervisor::v0 as api;
use crate::pod::errors::PodError;
use crate::pod::supervisor::Supervisor;

pub async fn serve(supervisor: &Supervisor, _request: api::ShutdownRequest) -> Result<api::ShutdownResponse, PodError> {
    let exits = supervisor
        .shut_down()
        .await?
        .into_iter()
        .map(|(container_id, exit)| api::ShutdownExit {
            container_id,
            exit_code: exit.code,
            oom_killed: exit.oom_killed,
            finished_at_ns: exit.finished_at_ns,
        })
        .collect();
    Ok(api::ShutdownResponse { exits })
}
