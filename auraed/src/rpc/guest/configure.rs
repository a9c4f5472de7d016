//! Configure.

use std::path::{Component, Path, PathBuf};

use crate::api::guest::v0 as api;
use crate::api::supervisor::v0 as supervisor;
use crate::init::configure::Configuration;
use crate::init::errors::GuestError;
use crate::init::guest::{Configured, Guest};
use crate::init::network::{Interface, Prefix, Route, parse_address};
use crate::rpc::convert::id_mappings;

pub async fn serve(guest: &Guest, request: api::ConfigureRequest) -> Result<api::ConfigureResponse, GuestError> {
    Ok(response(guest.configure(configuration(request)?).await?))
}

fn configuration(request: api::ConfigureRequest) -> Result<Configuration, GuestError> {
    let mut sysctls: Vec<(String, String)> = request.sysctls.into_iter().collect();
    sysctls.sort();
    Ok(Configuration {
        pod_id: request.pod_id,
        hostname: request.hostname,
        sysctls,
        shm_size_bytes: request.shm_size_bytes,
        shared_pid: request.shared_pid,
        files: request.files.into_iter().map(file).collect::<Result<_, _>>()?,
        interface: request.interface.map(interface).transpose()?,
        clock_ns: request.clock_ns,
        entropy: request.entropy.to_vec(),
        uid_mappings: id_mappings(request.uid_mappings),
        gid_mappings: id_mappings(request.gid_mappings),
    })
}

fn file(file: api::File) -> Result<(PathBuf, Vec<u8>), GuestError> {
    Ok((file_path(file.path)?, file.content.to_vec()))
}

fn file_path(path: String) -> Result<PathBuf, GuestError> {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if Path::new(&path).is_absolute() && !path.contains('\0') && !path.ends_with('/') && Path::new(&path).components().all(plain) {
        Ok(path.into())
    } else {
        Err(GuestError::invalid("files.path", format!("{path:?} must be an absolute path of a file, without `..`")))
    }
}

fn interface(interface: supervisor::Interface) -> Result<Interface, GuestError> {
    let mac = interface.mac.as_ref().try_into();
    let mac = mac.map_err(|_| GuestError::invalid("interface.mac", format!("{} bytes must be six", interface.mac.len())))?;
    let addresses = interface.addresses.iter().map(|text| Prefix::parse("interface.addresses", text));
    let interface = Interface {
        name: interface.name,
        mac,
        mtu: interface.mtu,
        addresses: addresses.collect::<Result<_, _>>()?,
        routes: interface.routes.into_iter().map(route).collect::<Result<_, _>>()?,
    };
    interface.check().map(|()| interface)
}

fn route(route: supervisor::Route) -> Result<Route, GuestError> {
    let scope = route.scope.try_into();
    Ok(Route {
        destination: Prefix::parse("interface.routes.destination", &route.destination)?,
        gateway: parse_address("interface.routes.gateway", &route.gateway)?,
        source: parse_address("interface.routes.source", &route.source)?,
        scope: scope.map_err(|_| GuestError::invalid("interface.routes.scope", format!("{} must be at most 255", route.scope)))?,
        metric: route.metric,
        onlink: route.onlink,
    })
}

fn response(configured: Configured) -> api::ConfigureResponse {
    let Configured { pins, facts } = configured;
    api::ConfigureResponse {
        network_path: text(pins.network),
        user_path: text(pins.user),
        ipc_path: text(pins.ipc),
        uts_path: text(pins.uts),
        pid_path: text(pins.pid),
        kernel_release: facts.kernel_release,
        memory_total_bytes: facts.memory_total_bytes,
        cpus: facts.cpus,
        capabilities: facts.capabilities,
        seccomp: facts.seccomp,
        swap_accounting: facts.swap_accounting,
        hugepage_sizes: facts.hugepage_sizes,
    }
}

fn text(path: Option<PathBuf>) -> String {
    path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_plain_absolute_paths() {
        assert!(file_path("/run/aurae/etc/hosts".to_owned()).is_ok());
        for bad in ["", "/", "hosts", "/a/../b", "/a/", "/a\0"] {
            assert!(file_path(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = supervisor::Interface { name: "eth0".to_owned(), mac: vec![2; 6].into(), mtu: 1500, ..Default::default() };
        assert!(interface(good.clone()).is_ok());
        let refused = |bad: supervisor::Interface| interface(bad).unwrap_err().to_string();
        assert!(refused(supervisor::Interface { mac: vec![2; 5].into(), ..good.clone() }).starts_with("interface.mac"));
        assert!(
            refused(supervisor::Interface { addresses: vec!["10.0.0.1".to_owned()], ..good.clone() }).starts_with("interface.addresses")
        );
        let route = supervisor::Route { destination: "0.0.0.0/0".to_owned(), gateway: "x".to_owned(), ..Default::default() };
        assert!(refused(supervisor::Interface { routes: vec![route], ..good }).starts_with("interface.routes.gateway"));
    }
}
