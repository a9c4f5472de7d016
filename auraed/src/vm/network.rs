//! Joining the VM's tap to the interface that CNI made, so that the guest can be to the pod's network what that interface was.
//!
//! ```text
//!  CNI's peer ◄──veth──► eth0 ◄──tc redirect──► tap0 ◄──► QEMU ◄──► the guest's interface
//! ```
//! Every frame that arrives at one of the two leaves at the other, before the namespace's own network stack sees it. That stack keeps the
//! interface's addresses, for CNI to find what it made, and never uses them again.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType};
use rtnetlink::packet_route::tc::TcHandle;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio_stream::{Stream, StreamExt};

use super::errors::VmError;
use super::launch::TAP;
use crate::pod::network::inside;

const MAX_ADDRESSES: usize = 64;
const MAX_ROUTES: usize = 256;
const ETH_P_ALL: u16 = 0x0003;

/// An interface as it is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mac: [u8; 6],
    pub mtu: u32,
    /// With prefix lengths; none of IPv6's link-local ones.
    pub addresses: Vec<(IpAddr, u8)>,
    pub routes: Vec<Route>,
}

/// A unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: (IpAddr, u8),
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub scope: u8,
    pub metric: u32,
    pub onlink: bool,
}

/// Joins the tap and reads how the interface is set up. Doing it again changes nothing.
pub async fn attach(namespace: PathBuf) -> Result<Interface, VmError> {
    let runtime = tokio::runtime::Handle::current();
    // A netlink socket belongs to the namespace in which it was made, wherever it is used.
    let (connection, handle, _) = inside(Some(namespace.clone()), move || {
        let _entered = runtime.enter();
        rtnetlink::new_connection()
    })
    .await
    .map_err(VmError::io("open a netlink socket in the network namespace"))?;
    let pump = tokio::spawn(connection);
    let result = join(&handle, namespace).await;
    pump.abort();
    result
}

async fn join(handle: &Handle, namespace: PathBuf) -> Result<Interface, VmError> {
    let links = collect(handle.link().get().execute()).await.map_err(netlink("list interfaces"))?;
    let (outer, tap) = pick(&links)?;
    let mut interface = described(outer)?;
    let index = outer.header.index;
    let addresses = collect(handle.address().get().set_link_index_filter(index).execute()).await.map_err(netlink("list addresses"))?;
    interface.addresses =
        addresses.iter().filter(|message| message.header.index == index).filter_map(address).take(MAX_ADDRESSES).collect();
    for family in [RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()] {
        let routes = collect(handle.route().get(family).execute()).await.map_err(netlink("list routes"))?;
        interface.routes.extend(routes.iter().filter_map(|message| route(message, index)).take(MAX_ROUTES));
    }
    // Before a frame of the guest can reach this namespace's stack, or the stack the network.
    let quiet = interface.name.clone();
    inside(Some(namespace), move || silence(&quiet)).await.map_err(VmError::io("quieten the interfaces"))?;
    redirect(handle, index, tap).await?;
    redirect(handle, tap, index).await?;
    let up = |index| LinkUnspec::new_with_index(index).up();
    handle.link().set(up(tap).mtu(interface.mtu).build()).execute().await.map_err(netlink("set the tap up"))?;
    handle.link().set(up(index).build()).execute().await.map_err(netlink("set the interface up"))?;
    Ok(interface)
}

fn netlink(action: &'static str) -> impl FnOnce(rtnetlink::Error) -> VmError {
    move |source| VmError::Netlink { action, source }
}

async fn collect<T>(stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>, rtnetlink::Error> {
    tokio::pin!(stream);
    let mut found = Vec::new();
    while let Some(item) = stream.next().await {
        found.push(item?);
    }
    Ok(found)
}

fn name(link: &LinkMessage) -> &str {
    link.attributes
        .iter()
        .find_map(|attribute| if let LinkAttribute::IfName(name) = attribute { Some(name.as_str()) } else { None })
        .unwrap_or("")
}

/// All zeros: the kernel's own tunnels, which every namespace has.
fn mac(link: &LinkMessage) -> Option<[u8; 6]> {
    let bytes =
        link.attributes.iter().find_map(|attribute| if let LinkAttribute::Address(bytes) = attribute { Some(bytes) } else { None })?;
    <[u8; 6]>::try_from(bytes.as_slice()).ok().filter(|mac| *mac != [0; 6])
}

/// The interface of the pod, and the index of the tap.
fn pick(links: &[LinkMessage]) -> Result<(&LinkMessage, u32), VmError> {
    let ethernet = links.iter().filter(|link| link.header.link_layer_type == LinkLayerType::Ether && mac(link).is_some());
    let (taps, others): (Vec<_>, Vec<_>) = ethernet.partition(|link| name(link) == TAP);
    let tap = taps.first().ok_or(VmError::NotStarted)?.header.index;
    match others[..] {
        [only] => Ok((only, tap)),
        [] => Err(VmError::Interfaces { found: "none".to_owned() }),
        _ => {
            let names: Vec<_> = others.iter().map(|link| name(link)).collect();
            Err(VmError::Interfaces { found: format!("{} ({})", names.len(), names.join(", ")) })
        }
    }
}

fn described(link: &LinkMessage) -> Result<Interface, VmError> {
    let mtu = link.attributes.iter().find_map(|attribute| if let LinkAttribute::Mtu(mtu) = attribute { Some(*mtu) } else { None });
    let (Some(mac), Some(mtu)) = (mac(link), mtu) else {
        return Err(VmError::Interfaces { found: format!("{} without an address or an MTU", name(link)) });
    };
    Ok(Interface { name: name(link).to_owned(), mac, mtu, addresses: Vec::new(), routes: Vec::new() })
}

fn address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    // Of a point-to-point link the first is the peer's.
    let local =
        message.attributes.iter().find_map(|attribute| if let AddressAttribute::Local(own) = attribute { Some(*own) } else { None });
    let any =
        message.attributes.iter().find_map(|attribute| if let AddressAttribute::Address(own) = attribute { Some(*own) } else { None });
    local.or(any).filter(|own| !is_link_local(own)).map(|own| (own, message.header.prefix_len))
}

/// Each end of a link makes its own.
fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn route(message: &RouteMessage, index: u32) -> Option<Route> {
    let header = &message.header;
    let (mut table, mut through, mut metric) = (u32::from(header.table), None, 0);
    let (mut destination, mut gateway, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(number) => through = Some(*number),
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    let ours = header.kind == RouteType::Unicast && table == u32::from(RouteHeader::RT_TABLE_MAIN) && through == Some(index);
    let unspecified = match header.address_family {
        rtnetlink::packet_route::AddressFamily::Inet => IpAddr::from([0u8; 4]),
        rtnetlink::packet_route::AddressFamily::Inet6 => IpAddr::from([0u8; 16]),
        _ => return None,
    };
    let destination = (destination.unwrap_or(unspecified), header.destination_prefix_length);
    if !ours || is_link_local(&destination.0) {
        return None;
    }
    Some(Route { destination, gateway, source, scope: header.scope.into(), metric, onlink: header.flags.contains(RouteFlags::Onlink) })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The namespace's own stack asks for no routers on either side, and has no IPv6 on the tap. A host without IPv6 has nothing to say it to.
fn silence(interface: &str) -> std::io::Result<()> {
    let settings = [(interface, "accept_ra"), (interface, "router_solicitations"), (interface, "autoconf")];
    for (interface, setting, value) in
        settings.map(|(interface, setting)| (interface, setting, "0")).into_iter().chain([(TAP, "disable_ipv6", "1")])
    {
        let file = PathBuf::from("/proc/sys/net/ipv6/conf").join(interface).join(setting);
        match std::fs::write(&file, value) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(std::io::Error::new(error.kind(), format!("{}: {error}", file.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What arrives at `from` leaves at `to`. A match on every byte string, for not every kernel has a filter that matches all.
async fn redirect(handle: &Handle, from: u32, to: u32) -> Result<(), VmError> {
    let from = i32::try_from(from).map_err(|_| VmError::NotStarted)?;
    // Left by an attempt that failed later. Nothing there is no failure, and a real one shows in the next step.
    let mut gone = handle.qdisc().del(from);
    gone.message_mut().header.parent = TcHandle::INGRESS;
    let _ = gone.execute().await;
    handle.qdisc().add(from).ingress().execute().await.map_err(netlink("add an ingress queue"))?;
    let filter = handle.traffic_filter(from).add().ingress().protocol(ETH_P_ALL.to_be());
    filter.redirect(to).map_err(netlink("make a filter"))?.execute().await.map_err(netlink("add a filter"))
}
