//! Into the pod's network namespace: a thread goes there, does one thing and ends.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::sys::namespace;

/// How long a connection to the pod's own loopback may take.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Enough for a system call or two.
const STACK_BYTES: usize = 128 * 1024;

/// Counters of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Every interface of the namespace but the loopback, and those that the kernel makes in each one and nobody has used.
pub async fn interfaces(namespace: PathBuf) -> io::Result<Vec<Interface>> {
    let text = inside(Some(namespace), || fs::read_to_string("/proc/thread-self/net/dev")).await?;
    Ok(parse_interfaces(&text))
}

/// A connection to a port of the loopback, by IPv4, else by IPv6. `None`: of the namespace we are in.
pub async fn dial(namespace: Option<PathBuf>, port: u16) -> io::Result<TcpStream> {
    inside(namespace, move || {
        let connect = |address: SocketAddr| TcpStream::connect_timeout(&address, DIAL_LIMIT);
        connect((Ipv4Addr::LOCALHOST, port).into()).or_else(|error| connect((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| error))
    })
    .await
}

pub(crate) async fn inside<T: Send + 'static>(
    namespace: Option<PathBuf>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (reply, answer) = oneshot::channel();
    // Not one of the runtime's threads: they go on to do other work, elsewhere.
    thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let result = namespace.map_or(Ok(()), |path| enter(&path)).and_then(|()| work());
        // Nobody may be waiting any more.
        let _ = reply.send(result);
    })?;
    answer.await.map_err(io::Error::other)?
}

fn enter(namespace: &Path) -> io::Result<()> {
    namespace::enter_network(File::open(namespace)?.as_fd())
}

/// /proc/net/dev: after two lines of headings `name: 16 numbers`, eight received and eight sent.
fn parse_interfaces(text: &str) -> Vec<Interface> {
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let numbers: Vec<u64> = counters.split_whitespace().map(|number| number.parse().unwrap_or(0)).collect();
            let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = numbers[..]
            else {
                return None;
            };
            let name = name.trim().to_owned();
            Some(Interface { name, rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped })
        })
        .filter(|interface| interface.name != "lo" && !is_unused_fallback(interface))
        .collect()
}

/// The kernel's own device of each kind of tunnel: it is in every network namespace once the kind is known to the kernel.
const FALLBACK_TUNNELS: [&str; 9] = ["tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"];

fn is_unused_fallback(interface: &Interface) -> bool {
    FALLBACK_TUNNELS.contains(&interface.name.as_str()) && *interface == Interface { name: interface.name.clone(), ..Interface::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_without_the_loopback_and_tunnels_of_nobody() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  sit0:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
 tunl0:     100       1    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth0:    1500      10    1    2    0     0          0         0     2500      20    3    4    0     0       0          0
";
        let expected = Interface {
            name: "eth0".to_owned(),
            rx_bytes: 1500,
            rx_packets: 10,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 2500,
            tx_packets: 20,
            tx_errors: 3,
            tx_dropped: 4,
        };
        let used = Interface { name: "tunl0".to_owned(), rx_bytes: 100, rx_packets: 1, ..Interface::default() };
        assert_eq!(parse_interfaces(text), [used, expected]);
    }
}
