//! The guest's interface, set up as the one that CNI made for the pod on the host.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::errors::GuestError;
use crate::pod::network::inside;

const INTERFACES: &str = "/sys/class/net";
/// The kernel's limit, its NUL not counted.
const NAME_MAX_BYTES: usize = 15;
const MTU_MIN: u32 = 68;
const MTU_MAX: u32 = 65_535;

/// An address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    /// From `address/prefix length`.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, GuestError> {
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
            let longest = if address.is_ipv4() { 32 } else { 128 };
            (length <= longest).then_some(Self { address, length })
        });
        parsed.ok_or_else(|| GuestError::invalid(field, format!("{text:?} must be an address, `/` and the length of its prefix")))
    }
}

/// From text; empty is none.
pub fn parse_address(field: &'static str, text: &str) -> Result<Option<IpAddr>, GuestError> {
    match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| GuestError::invalid(field, format!("{text:?} must be an IP address"))),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: Prefix,
    /// `None`: on the link.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// rtnetlink's numbers.
    pub scope: u8,
    /// 0: the kernel's choice.
    pub metric: u32,
    pub onlink: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub addresses: Vec<Prefix>,
    pub routes: Vec<Route>,
}

impl Interface {
    /// What the kernel would refuse with less to say.
    pub fn check(&self) -> Result<(), GuestError> {
        let plain = |character: char| character.is_ascii_graphic() && !matches!(character, '/' | ':' | '%');
        let reserved = matches!(self.name.as_str(), "" | "." | ".." | "lo" | "all" | "default");
        if reserved || self.name.len() > NAME_MAX_BYTES || !self.name.chars().all(plain) {
            return Err(GuestError::invalid("interface.name", format!("{:?} is no name for an interface", self.name)));
        }
        if !(MTU_MIN..=MTU_MAX).contains(&self.mtu) {
            return Err(GuestError::invalid("interface.mtu", format!("{} must be {MTU_MIN} to {MTU_MAX}", self.mtu)));
        }
        for route in &self.routes {
            let mut others = [route.gateway, route.source].into_iter().flatten();
            if others.any(|address| address.is_ipv4() != route.destination.address.is_ipv4()) {
                return Err(GuestError::invalid("interface.routes", format!("{route:?} mixes IPv4 and IPv6")));
            }
        }
        Ok(())
    }
}

/// Sets the guest's one interface up. Only the routes that are asked for will be there: the kernel adds none of its own.
pub async fn apply(wanted: &Interface) -> Result<(), GuestError> {
    let index = find(Path::new(INTERFACES))?;
    with_netlink(None, async |handle| set_up(&handle, index, wanted, None).await).await
}

/// The same in another network namespace, which the interface moves to. It comes back when the namespace ends.
pub async fn apply_in(namespace: PathBuf, wanted: &Interface) -> Result<(), GuestError> {
    let index = find(Path::new(INTERFACES))?;
    let target = fs::File::open(&namespace).map_err(GuestError::io("open the pod's network namespace"))?;
    with_netlink(None, async |handle: Handle| {
        let link = LinkUnspec::new_with_index(index).setns_by_fd(target.as_raw_fd());
        handle.link().set(link.build()).execute().await.map_err(netlink("move the interface to the pod's network namespace"))
    })
    .await?;
    // There it keeps its number: nothing else is there but the loopback.
    with_netlink(Some(namespace.clone()), async |handle| set_up(&handle, index, wanted, Some(namespace)).await).await
}

/// A netlink socket belongs to the namespace in which it was made, wherever it is used.
async fn with_netlink<T>(namespace: Option<PathBuf>, work: impl AsyncFnOnce(Handle) -> Result<T, GuestError>) -> Result<T, GuestError> {
    let runtime = tokio::runtime::Handle::current();
    let opened = inside(namespace, move || {
        let _entered = runtime.enter();
        rtnetlink::new_connection()
    });
    let (connection, handle, _) = opened.await.map_err(GuestError::io("open a netlink socket"))?;
    let connection = tokio::spawn(connection);
    let result = work(handle).await;
    connection.abort();
    result
}

async fn set_up(handle: &Handle, index: u32, wanted: &Interface, namespace: Option<PathBuf>) -> Result<(), GuestError> {
    // A new name and, with some devices, a new MAC are taken only while it is down; so is what an earlier attempt left.
    let link = LinkUnspec::new_with_index(index);
    let described = link.down().name(wanted.name.clone()).address(wanted.mac.to_vec()).mtu(wanted.mtu);
    handle.link().set(described.build()).execute().await.map_err(netlink("set the interface's name, MAC and MTU"))?;
    let name = wanted.name.clone();
    inside(namespace, move || write_settings(&name)).await.map_err(GuestError::io("set how the interface takes IPv6 addresses"))?;
    for prefix in &wanted.addresses {
        let mut request = handle.address().add(index, prefix.address, prefix.length).replace();
        // The host has found out that nobody else has it, and says which routes there are.
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute | AddressFlags::Permanent;
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        request.execute().await.map_err(netlink(format!("add the address {}/{}", prefix.address, prefix.length)))?;
    }
    let link = LinkUnspec::new_with_index(index);
    handle.link().set(link.up().build()).execute().await.map_err(netlink("set the interface up"))?;
    for route in in_order(&wanted.routes) {
        let action = format!("add the route {route:?}");
        handle.route().add(message(index, route)).replace().execute().await.map_err(netlink(action))?;
    }
    Ok(())
}

fn netlink(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> GuestError {
    let action = action.into();
    move |source| GuestError::Network { action, source }
}

/// A gateway must be reachable before it is named.
fn in_order(routes: &[Route]) -> impl Iterator<Item = &Route> {
    routes.iter().filter(|route| route.gateway.is_none()).chain(routes.iter().filter(|route| route.gateway.is_some()))
}

fn message(index: u32, route: &Route) -> RouteMessage {
    fn with<T>(builder: RouteMessageBuilder<T>, index: u32, route: &Route) -> RouteMessage {
        let builder = builder.output_interface(index).scope(RouteScope::from(route.scope));
        let builder = if route.metric > 0 { builder.priority(route.metric) } else { builder };
        if route.onlink { builder.onlink().build() } else { builder.build() }
    }
    match (route.destination.address, route.gateway, route.source) {
        (IpAddr::V4(to), gateway, source) => {
            let mut builder = RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(to, route.destination.length);
            if let Some(IpAddr::V4(gateway)) = gateway {
                builder = builder.gateway(gateway);
            }
            if let Some(IpAddr::V4(source)) = source {
                builder = builder.pref_source(source);
            }
            with(builder, index, route)
        }
        (IpAddr::V6(to), gateway, source) => {
            let mut builder = RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(to, route.destination.length);
            if let Some(IpAddr::V6(gateway)) = gateway {
                builder = builder.gateway(gateway);
            }
            if let Some(IpAddr::V6(source)) = source {
                builder = builder.pref_source(source);
            }
            with(builder, index, route)
        }
    }
}

/// IPv6 as CNI leaves it: no addresses from routers, and none that waits to be found free.
fn write_settings(name: &str) -> io::Result<()> {
    let settings = Path::new("/proc/sys/net/ipv6/conf").join(name);
    for setting in ["accept_ra", "accept_dad"] {
        match fs::write(settings.join(setting), "0") {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// The number of the one interface that has a device behind it.
fn find(interfaces: &Path) -> Result<u32, GuestError> {
    let listed = fs::read_dir(interfaces).map_err(GuestError::io("list the interfaces"))?;
    let with_device = listed.flatten().map(|entry| entry.path()).find(|path| path.join("device").exists());
    let path = with_device.ok_or_else(|| GuestError::Missing { what: "network device".to_owned() })?;
    let text = fs::read_to_string(path.join("ifindex")).map_err(GuestError::io("read the interface's number"))?;
    text.trim_end().parse().map_err(|error| GuestError::io("read the interface's number")(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: &str) -> Route {
        Route {
            destination: Prefix::parse("d", destination).unwrap(),
            gateway: parse_address("g", gateway).unwrap(),
            source: None,
            scope: 0,
            metric: 0,
            onlink: false,
        }
    }

    #[test]
    fn prefixes() {
        assert_eq!(Prefix::parse("f", "10.1.2.3/24").unwrap(), Prefix { address: "10.1.2.3".parse().unwrap(), length: 24 });
        assert_eq!(Prefix::parse("f", "fd00::1/128").unwrap().length, 128);
        for bad in ["", "10.1.2.3", "10.1.2.3/33", "fd00::1/129", "10.1.2/24", "10.1.2.3/-1", "eth0/24"] {
            assert!(Prefix::parse("f", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_kernel_would_refuse() {
        let good = Interface { name: "eth0".to_owned(), mac: [2; 6], mtu: 1450, addresses: Vec::new(), routes: Vec::new() };
        assert!(good.check().is_ok());
        for name in ["", ".", "..", "lo", "all", "a/b", "a b", "sixteen-bytes-xx"] {
            assert!(Interface { name: name.to_owned(), ..good.clone() }.check().is_err(), "{name}");
        }
        assert!(Interface { mtu: 0, ..good.clone() }.check().is_err());
        assert!(Interface { routes: vec![route("0.0.0.0/0", "fe80::1")], ..good }.check().is_err());
    }

    #[test]
    fn the_way_to_a_gateway_comes_first() {
        let routes = [route("0.0.0.0/0", "169.254.1.1"), route("169.254.1.1/32", ""), route("::/0", "fe80::1")];
        let lengths: Vec<u8> = in_order(&routes).map(|route| route.destination.length).collect();
        assert_eq!(lengths, [32, 0, 0]);
    }
}
