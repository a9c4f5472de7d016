//! MountLayers.

use crate::api::guest::v0 as api;
use crate::init::errors::GuestError;
use crate::init::guest::Guest;
use crate::init::layers::Layer;

pub async fn serve(guest: &Guest, request: api::MountLayersRequest) -> Result<api::MountLayersResponse, GuestError> {
    let layers = request.layers.into_iter().map(|layer| Layer::new(layer.pci_path, layer.name)).collect::<Result<Vec<_>, _>>()?;
    let paths = guest.mount_layers(layers).await?;
    Ok(api::MountLayersResponse { paths: paths.into_iter().map(|path| path.to_string_lossy().into_owned()).collect() })
}
