//! MountImage.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::container::Request;
use crate::pod::errors::PodError;
use crate::rpc::convert::container_id;

pub async fn serve(pod: &Pod, mut request: api::MountImageRequest) -> Result<api::MountImageResponse, PodError> {
    let id = container_id(std::mem::take(&mut request.container_id))?;
    request.container_id.clone_from(&id);
    pod.ask(&id, |reply| Request::MountImage(Box::new(request), reply)).await?;
    Ok(api::MountImageResponse {})
}
