//! What hosts are told, and what a project begins with.

use std::collections::BTreeMap;

use protocol::ProjectId;
use protocol::agent::{FloatingIp, Router, StaticRoute};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{EDGE, ROUTERS, add, start};
use crate::routers::store::{defaults, hosts};
use crate::testing::TestCloud;

async fn networks(cloud: &TestCloud) -> BTreeMap<String, Uuid> {
    let rows: Vec<(String, Uuid)> =
        sqlx::query_as("SELECT name, id FROM networks").fetch_all(&cloud.app.pool).await.unwrap();
    rows.into_iter().collect()
}

/// What a host is told that these networks reach, and that has these ports.
async fn told(conn: &mut PgConnection, networks: &[Uuid], ports: &[Uuid]) -> Vec<Router> {
    let routers = hosts::of_networks(conn, networks, ports).await.unwrap();
    routers.told(&networks.iter().copied().collect(), &ports.iter().copied().collect()).unwrap()
}

#[tokio::test]
async fn a_host_learns_the_routers_of_its_networks_and_the_addresses_of_its_ports() {
    let cloud = start().await;
    let front = cloud.insert_subnet("front", "10.7.0.0/24", Some("10.7.0.1")).await;
    cloud.insert_subnet("back", "10.8.0.0/24", Some("10.8.0.1")).await;
    cloud.insert_subnet("far", "10.9.0.0/24", Some("10.9.0.1")).await;
    cloud.post(ROUTERS, json!({"name": "inner", "external": false})).await.expect(201);
    for (router, subnet) in [("edge", "front"), ("edge", "back"), ("inner", "far")] {
        add(&cloud, router, subnet).await.expect(200);
    }
    let route = json!({"destination": "192.168.0.0/16", "next_hop": "10.8.0.9"});
    let patch = json!({"routes": [route]});
    cloud.call(axum::http::Method::PATCH, EDGE, Some(patch)).await.expect(200);
    let (here, elsewhere) = (
        cloud.insert_port("here", &[(front, "10.7.0.5")]).await,
        cloud.insert_port("elsewhere", &[(front, "10.7.0.6")]).await,
    );
    cloud.post("/v1/address_pools", json!({"name": "public", "cidr": "203.0.113.0/24"})).await.expect(201);
    for port in ["here", "elsewhere"] {
        let floating_ips = "/v1/projects/demo/floating_ips";
        cloud.post(floating_ips, json!({"name": port})).await.expect(201);
        let associate = format!("{floating_ips}/{port}/associate");
        cloud.post(&associate, json!({"port": port})).await.expect(200);
    }
    let networks = networks(&cloud).await;
    let mut conn = cloud.app.pool.acquire().await.unwrap();

    let routers = told(&mut conn, &[networks["back"]], &[here]).await;
    assert_eq!(routers.len(), 1);
    let edge = &routers[0];
    assert!(edge.external && edge.number > 0);
    let stands: Vec<_> =
        edge.interfaces.iter().map(|one| (one.network_id, one.address.to_string())).collect();
    assert_eq!(
        stands,
        [
            (networks["front"].into(), "10.7.0.1/24".to_owned()),
            (networks["back"].into(), "10.8.0.1/24".to_owned())
        ]
    );
    let route =
        StaticRoute { destination: "192.168.0.0/16".parse().unwrap(), next_hop: "10.8.0.9".parse().unwrap() };
    assert_eq!(edge.routes, [route]);
    let floating: Vec<&FloatingIp> = edge.floating_ips.iter().collect();
    assert_eq!(floating.len(), 1);
    assert_eq!((floating[0].port_id, floating[0].address), (here.into(), "203.0.113.1".parse().unwrap()));
    assert_eq!(floating[0].fixed_address.to_string(), "10.7.0.5");

    let both = [networks["far"], networks["front"]];
    let all = told(&mut conn, &both, &[here, elsewhere]).await;
    assert_eq!(all.iter().map(|router| router.floating_ips.len()).collect::<Vec<_>>(), [2, 0]);
    assert!(told(&mut conn, &[], &[here]).await.is_empty());

    // What is read for several hosts is told to each as if it were alone.
    let read = hosts::of_networks(&mut conn, &both, &[here, elsewhere]).await.unwrap();
    for (network, port) in [(networks["far"], here), (networks["front"], elsewhere)] {
        let alone = told(&mut conn, &[network], &[port]).await;
        assert_eq!(read.told(&[network].into(), &[port].into()).unwrap(), alone);
    }
}

#[tokio::test]
async fn the_default_router_leads_out_of_its_subnet() {
    let cloud = start().await;
    let subnet = cloud.insert_subnet("front", "10.7.0.0/24", Some("10.7.0.1")).await;
    for sql in ["DELETE FROM router_interfaces", "DELETE FROM routers WHERE name = 'default'"] {
        sqlx::query(sql).execute(&cloud.app.pool).await.unwrap();
    }
    let project: Uuid = sqlx::query_scalar("SELECT id FROM projects WHERE name = 'demo'")
        .fetch_one(&cloud.app.pool)
        .await
        .unwrap();
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let (clock, project) = (&cloud.app.clock, ProjectId::from(project));
    let id = defaults::make(&mut conn, clock, project, subnet.into(), clock.now()).await.unwrap();
    let router = cloud.get(&format!("{ROUTERS}/default")).await.expect(200);
    assert_eq!((&router["id"], &router["external"]), (&json!(id), &json!(true)));
    assert_eq!(router["interfaces"][0]["address"], "10.7.0.1");
}
