//! AttachNetwork.

use std::net::IpAddr;

use crate::api::supervisor::v0 as api;
use crate::vm::errors::VmError;
use crate::vm::machine::Vm;
use crate::vm::network::{Interface, Route};

pub async fn serve(vm: &Vm, _request: api::AttachNetworkRequest) -> Result<api::AttachNetworkResponse, VmError> {
    let interface = vm.attach_network().await?;
    Ok(api::AttachNetworkResponse { interface: Some(message(interface)) })
}

fn message(interface: Interface) -> api::Interface {
    api::Interface {
        name: interface.name,
        mac: interface.mac.to_vec().into(),
        mtu: interface.mtu,
        addresses: interface.addresses.into_iter().map(prefixed).collect(),
        routes: interface.routes.into_iter().map(route).collect(),
    }
}

fn route(route: Route) -> api::Route {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    api::Route {
        destination: prefixed(route.destination),
        gateway: text(route.gateway),
        source: text(route.source),
        scope: route.scope.into(),
        metric: route.metric,
        onlink: route.onlink,
    }
}

fn prefixed((address, length): (IpAddr, u8)) -> String {
    format!("{address}/{length}")
}
