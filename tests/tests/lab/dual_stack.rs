//! IPv4 and IPv6 between guests of two hosts, in one network, through a router, and by public addresses.

use anyhow::{Context, Result, ensure};
use lab::{Guest, Lab, LabOptions, Project, in_lab};
use serde_json::json;

use crate::scene::{Actor, cast, curtain, egress, get, group, ingress, ping, post, serve};

/// Addresses of the underlay that no machine of the lab has.
const PUBLIC: (&str, &str) = ("192.0.2.128", "192.0.2.191");

/// The networks `default` and `back`, each with both families, and a router in all four subnets.
async fn networks(project: &Project) -> Result<()> {
    post(project, "/networks", json!({"name": "back"})).await?;
    let subnets = [
        ("six", "default", "fd00:1::/64"),
        ("back", "back", "10.1.0.0/24"),
        ("back-six", "back", "fd00:2::/64"),
    ];
    for (name, network, cidr) in subnets {
        post(project, "/subnets", json!({"name": name, "network": network, "cidr": cidr})).await?;
        post(project, "/routers/default/add_interface", json!({"subnet": name})).await?;
    }
    Ok(())
}

/// Asks for an IPv6 address by DHCPv6; the prefix and the router come by advertisement.
async fn take_ipv6(actor: &mut Actor) -> Result<String> {
    let address = actor.v6.clone().with_context(|| format!("{} has no IPv6 address", actor.instance.name))?;
    actor.shell.output(
        "ip -6 route del default; dhcp6 eth0 > /run/dhcp6.log 2>&1 || { cat /run/dhcp6.log; false; }",
    )?;
    let mine = actor.shell.output("ip -6 addr show dev eth0 scope global")?;
    ensure!(mine.contains(&format!("inet6 {address}/")), "not {address}: {mine}");
    Ok(address)
}

/// Of the neighbour in this family, while its host is not reachable: the answer is this host's own.
fn neighbour_is_known(lab: &Lab, from: &mut Actor, to: &Actor, address: &str) -> Result<()> {
    from.shell.output("ip neigh flush dev eth0")?;
    let host = to.on(lab)?;
    lab.set_cable(host, false)?;
    let unreachable = from.shell.fails(&ping(address));
    let known = from.shell.output(&format!("ip neigh show {address}"));
    lab.set_cable(host, true)?;
    unreachable?;
    let known = known?;
    ensure!(known.contains(&to.mac), "{address} is {}, not {known}", to.mac);
    Ok(())
}

async fn one_network(lab: &Lab, a: &mut Actor, b: &mut Actor, stranger: &mut Actor) -> Result<()> {
    let b6 = take_ipv6(b).await?;
    take_ipv6(a).await?;
    for address in [b6.clone(), b.v4.clone()] {
        neighbour_is_known(lab, a, b, &address)?;
    }
    a.soon(&ping(&b6)).await?;
    let named = a.shell.output("nslookup -type=aaaa b.tests.internal")?;
    ensure!(named.contains(&b6), "{named}");

    // The group allows pings of IPv6 only, and one port for members of another group, in both families.
    a.shell.fails(&ping(&b.v4))?;
    for address in [&b6, &b.v4] {
        a.soon(&get(address, 80)).await?;
        a.shell.fails(&get(address, 81))?;
        stranger.shell.fails(&get(address, 80))?;
    }
    Ok(())
}

async fn two_networks(project: &Project, a: &mut Actor, b: &mut Actor, c: &mut Actor) -> Result<()> {
    let c6 = c.v6.clone().context("no IPv6 address")?;
    for near in [&mut *a, &mut *b] {
        // IPv6 guests take the advertising services for their router, which lead on to it.
        for (address, ttl) in [(&c.v4, "ttl=63"), (&c6, "ttl=62")] {
            let pinged = near.soon(&ping(address)).await?;
            ensure!(pinged.contains(ttl), "not {ttl}: {pinged}");
        }
    }

    // Behind c there are further networks.
    let networks = [("172.20.0.0/16", "172.20.0.1"), ("fd00:99::/64", "fd00:99::1")];
    for (_, address) in networks {
        c.shell.output(&format!("ip addr add {address} dev lo"))?;
    }
    let routes = json!([
        {"destination": networks[0].0, "next_hop": c.v4}, {"destination": networks[1].0, "next_hop": c6},
    ]);
    project.cloud.patch(&project.path("/routers/default"), json!({"routes": routes})).await?.success()?;
    let pairs = networks.map(|(cidr, _)| json!({"cidr": cidr}));
    c.change_port(json!({"allowed_address_pairs": pairs})).await?;
    for (_, address) in networks {
        for near in [&mut *a, &mut *b] {
            near.soon(&ping(address)).await?;
        }
    }
    // Only its pairs let it answer from there.
    c.change_port(json!({"allowed_address_pairs": []})).await?;
    for (_, address) in networks {
        a.soon_fails(&ping(address)).await?;
    }
    a.shell.output(&ping(&c.v4)).map(|_| ())
}

/// `c` is on the host of one of the other two.
async fn public_addresses(
    lab: &Lab,
    project: &Project,
    a: &mut Actor,
    b: &mut Actor,
    c: &mut Actor,
) -> Result<()> {
    let (first, last) = PUBLIC;
    let pool =
        json!({"name": "public", "cidr": "192.0.2.0/24", "first_address": first, "last_address": last});
    lab.cloud.post("/v1/address_pools", pool).await?.success()?;
    let mut public = Vec::new();
    for actor in [&*a, &*c] {
        let name = &actor.instance.name;
        let floating = post(project, "/floating_ips", json!({"name": name})).await?;
        post(project, &format!("/floating_ips/{name}/associate"), json!({"instance": name})).await?;
        public.push(floating["address"].as_str().context("no address")?.to_owned());
    }
    let [of_a, of_c] = &public[..] else { anyhow::bail!("{public:?}") };

    c.shell.output("killall httpd; httpd -f -vv -p 80 -h /www > /run/visitors 2>&1 &")?;
    for visitor in [&mut *a, &mut *b] {
        let page = visitor.soon(&get(of_c, 80)).await?;
        ensure!(page.contains("c-page"), "{page}");
        // Only one of c's ports is open, by whatever way.
        visitor.shell.fails(&get(of_c, 81))?;
    }
    let page = c.soon(&get(of_c, 80)).await?;
    ensure!(page.contains("c-page"), "{page}");
    let visitors = c.shell.output("cat /run/visitors")?;
    for (who, address) in [("a", of_a), ("c itself", of_c)] {
        ensure!(visitors.contains(address), "{who} does not come from {address}: {visitors}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn guests_meet_in_both_families_through_a_router_and_by_public_addresses() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        networks(&project).await?;
        let [all4, all6] = egress();
        group(&project, "client", vec![all4.clone(), all6.clone()]).await?;
        let members = ingress(json!({"protocol": "tcp", "port_first": 80, "remote_group": "client"}));
        let pings = ingress(json!({"protocol": "icmp", "remote_cidr": "::/0"}));
        group(&project, "server", vec![members, pings, all4.clone(), all6.clone()]).await?;
        let web = ingress(json!({"protocol": "tcp", "port_first": 80, "remote_cidr": "0.0.0.0/0"}));
        let [pings4, pings6] =
            ["0.0.0.0/0", "::/0"].map(|all| ingress(json!({"protocol": "icmp", "remote_cidr": all})));
        group(&project, "far", vec![web, pings4, pings6, all4, all6]).await?;

        let card = |network: &str, group: &str| json!({"network": network, "security_groups": [group]});
        let cards =
            [("a", card("default", "client")), ("b", card("default", "server")), ("c", card("back", "far"))];
        let mut actors = cast(lab, &project, &cards).await?;
        let [a, b, c] = &mut actors[..] else { anyhow::bail!("not three") };
        ensure!(a.host != b.host, "a and b are both on {}", a.host);
        take_ipv6(c).await?;
        serve(b, &[80, 81])?;
        serve(c, &[80, 81])?;

        one_network(lab, a, b, c).await.context("in one network")?;
        two_networks(&project, a, b, c).await.context("through the router")?;
        public_addresses(lab, &project, a, b, c).await.context("by public addresses")?;
        curtain(lab, actors).await
    })
    .await
}
