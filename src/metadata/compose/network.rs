//! Owns a compose file's networks, and the placeholder addresses of containers that do not exist yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::yaml::{Content, Node, Reader};
use crate::input::Text;

/// Hands out the ranges placeholder addresses come from: IPv4 blocks of 198.18.0.0/15 (RFC 2544, benchmarking),
/// IPv6 blocks of 2001:db8::/32 (RFC 3849, documentation). Neither is anybody's.
/// One allocator for several files keeps their networks apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placeholders {
    used_v4: u32,
    used_v6: u32,
}

impl Placeholders {
    const BASE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
    const SIZE: u32 = 1 << 17;

    /// Nothing handed out yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A range with room for `hosts` containers and the gateway, at least a /24; none when all are handed out.
    fn v4(&mut self, hosts: usize) -> Option<IpNetwork> {
        let size = u32::try_from(hosts).ok()?.checked_add(3)?.checked_next_power_of_two()?.max(256);
        let start = self.used_v4.checked_next_multiple_of(size)?;
        self.used_v4 = start.checked_add(size).filter(|end| *end <= Self::SIZE)?;
        let prefix = u8::try_from(32 - size.trailing_zeros()).ok()?;
        let network = Ipv4Network::new(Ipv4Addr::from_bits(Self::BASE + start), prefix);
        network.ok().map(IpNetwork::V4)
    }

    fn v6(&mut self) -> Option<IpNetwork> {
        let number = u128::from(self.used_v6);
        self.used_v6 = self.used_v6.checked_add(1)?;
        let base = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).to_bits();
        Ipv6Network::new(Ipv6Addr::from_bits(base | number << 64), 64).ok().map(IpNetwork::V6)
    }
}

/// One network of the file.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// The name Docker knows it by.
    pub(super) name: String,
    pub(super) driver: Option<Text>,
    has_ipv6: bool,
    subnets: Vec<IpNetwork>,
    pub(super) gateways: BTreeSet<IpAddr>,
    /// Addresses taken already.
    taken: BTreeSet<IpAddr>,
    node: Node,
}

/// The file's networks by the name services use, `default` among them.
pub(super) fn networks(
    reader: &mut Reader<'_>,
    root: &Node,
    project: &str,
) -> BTreeMap<String, Network> {
    let mut networks = BTreeMap::new();
    for (key, node) in reader.map(root, "networks") {
        if let Some(key) = key.as_str() {
            networks.insert(key.to_owned(), network(reader, key, node, project));
        }
    }
    let default = Node { content: Content::Null, offset: root.offset };
    networks
        .entry("default".to_owned())
        .or_insert_with(|| network(reader, "default", &default, project));
    networks
}

fn network(reader: &mut Reader<'_>, key: &str, node: &Node, project: &str) -> Network {
    if !matches!(node.content, Content::Map(_) | Content::Null) {
        reader.problem(node, "compose/wrong-type", "a network must be a mapping");
    }
    // `external: {name: x}` is how version 3.4 and before wrote it.
    let external = node.get("external");
    let old_name = external.and_then(|external| external.get("name")).and_then(Node::as_str);
    let is_external = match external.map(|external| &external.content) {
        Some(Content::Map(_)) => true,
        _ => reader.flag(node, "external"),
    };
    let name = reader.scalar(node, "name").map(|(_, name)| name).or(old_name);
    let driver = reader.scalar(node, "driver").map(|(_, driver)| Text::new(driver));
    let mut network = Network {
        name: match name {
            Some(name) => name.to_owned(),
            None if is_external => key.to_owned(),
            None => format!("{project}_{key}"),
        },
        driver: driver.or_else(|| (!is_external).then(|| Text::new("bridge"))),
        has_ipv6: reader.flag(node, "enable_ipv6"),
        subnets: Vec::new(),
        gateways: BTreeSet::new(),
        taken: BTreeSet::new(),
        node: node.clone(),
    };
    let Some(ipam) = node.get("ipam") else { return network };
    for config in reader.items(ipam, "config") {
        if let Some((at, text)) = reader.scalar(config, "subnet") {
            match text.parse::<IpNetwork>() {
                Ok(subnet) if text.contains('/') => network.subnets.push(subnet),
                _ => reader.problem(
                    at,
                    "compose/invalid-address",
                    format!("`{}` is not a subnet such as 172.28.0.0/16", Text::new(text)),
                ),
            }
        }
        if let Some((at, text)) = reader.scalar(config, "gateway") {
            network.gateways.extend(address(reader, at, text));
        }
    }
    network
}

/// An address written in the file.
pub(super) fn address(reader: &mut Reader<'_>, node: &Node, text: &str) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        let message = format!("`{}` is not an IP address", Text::new(text));
        reader.problem(node, "compose/invalid-address", message);
    }
    address
}

impl Network {
    /// Whether it is Docker's shared default bridge.
    pub(super) fn is_default_bridge(&self) -> bool {
        self.name == "bridge"
    }

    /// Takes the addresses written in the file, and makes sure that there are subnets and gateways to choose the others from.
    pub(super) fn prepare(
        &mut self,
        reader: &mut Reader<'_>,
        placeholders: &mut Placeholders,
        fixed: impl Iterator<Item = IpAddr>,
        hosts: usize,
    ) {
        let has_v4 = self.subnets.iter().any(IpNetwork::is_ipv4);
        let has_v6 = self.subnets.iter().any(IpNetwork::is_ipv6);
        if !has_v4 {
            match placeholders.v4(hosts) {
                Some(subnet) => self.subnets.push(subnet),
                None => reader.problem(
                    &self.node.clone(),
                    "compose/too-many-networks",
                    "there are no placeholder addresses left for this network",
                ),
            }
        }
        if self.has_ipv6 && !has_v6 {
            self.subnets.extend(placeholders.v6());
        }
        for subnet in &self.subnets {
            if !self.gateways.iter().any(|gateway| subnet.contains(*gateway)) {
                self.gateways.extend(nth(subnet, 1));
            }
        }
        self.taken = self.gateways.iter().copied().chain(fixed).collect();
    }

    /// A free address of each family that is not among `fixed` already.
    pub(super) fn allocate(
        &mut self,
        reader: &mut Reader<'_>,
        fixed: &[IpAddr],
    ) -> BTreeSet<IpAddr> {
        let mut addresses: BTreeSet<_> = fixed.iter().copied().collect();
        let has = |is_v4: bool| addresses.iter().any(|address| address.is_ipv4() == is_v4);
        let families: Vec<bool> = [true, false].into_iter().filter(|is_v4| !has(*is_v4)).collect();
        for is_v4 in families {
            let Some(subnet) = self.subnets.iter().find(|subnet| subnet.is_ipv4() == is_v4) else {
                continue;
            };
            // There are at most as many taken as there are containers.
            let tries = 2..3 + self.taken.len() as u128;
            let free = tries.filter_map(|n| nth(subnet, n)).find(|a| !self.taken.contains(a));
            match free {
                Some(address) => {
                    self.taken.insert(address);
                    addresses.insert(address);
                }
                None => {
                    let message = format!("the subnet {subnet} has no room for all containers");
                    reader.problem(&self.node.clone(), "compose/subnet-full", message);
                }
            }
        }
        addresses
    }
}

/// The address `n` after the subnet's own; none past its end or at its broadcast address.
fn nth(subnet: &IpNetwork, n: u128) -> Option<IpAddr> {
    let address = match subnet {
        IpNetwork::V4(subnet) => {
            let address = subnet.network().to_bits().checked_add(u32::try_from(n).ok()?)?;
            let address = Ipv4Addr::from_bits(address);
            IpAddr::V4((address != subnet.broadcast()).then_some(address)?)
        }
        IpNetwork::V6(subnet) => {
            IpAddr::V6(Ipv6Addr::from_bits(subnet.network().to_bits().checked_add(n)?))
        }
    };
    subnet.contains(address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholder_ranges_never_overlap_and_end() {
        let mut placeholders = Placeholders::new();
        let ranges: Vec<_> = [1, 300, 1, 1000].map(|hosts| placeholders.v4(hosts)).into();
        let shown: Vec<_> = ranges.iter().map(|range| range.unwrap().to_string()).collect();
        assert_eq!(shown, ["198.18.0.0/24", "198.18.2.0/23", "198.18.4.0/24", "198.18.8.0/22"]);
        assert_eq!(placeholders.v6().unwrap().to_string(), "2001:db8::/64");
        assert_eq!(placeholders.v6().unwrap().to_string(), "2001:db8:0:1::/64");
        let mut placeholders = Placeholders::new();
        let count = std::iter::from_fn(|| placeholders.v4(1)).count();
        assert_eq!(count, 512);
    }
}
