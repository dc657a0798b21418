//! Networks, subnets and ports of the project `demo`, as rows.

use uuid::Uuid;

use super::TestCloud;

impl TestCloud {
    /// A network of this name with a subnet of the same name.
    pub(crate) async fn insert_subnet(&self, name: &str, cidr: &str, gateway: Option<&str>) -> Uuid {
        let (network, subnet): (Uuid, Uuid) = (self.app.clock.new_id(), self.app.clock.new_id());
        sqlx::query(
            "INSERT INTO networks (id, project_id, name, labels, vni, mtu, created_at, updated_at)
             SELECT $1, id, $2, '{}', 1 + coalesce((SELECT max(vni) FROM networks), 0), 1450, $3, $3
             FROM projects WHERE name = 'demo'",
        )
        .bind(network)
        .bind(name)
        .bind(self.app.clock.now())
        .execute(&self.app.pool)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO subnets (id, project_id, network_id, name, labels, cidr, gateway, service_address, dhcp,
                                  created_at, updated_at)
             SELECT $1, project_id, id, name, '{}', $3::cidr, $4::inet,
                    set_masklen(broadcast($3::inet) - 1, CASE family($3::inet) WHEN 4 THEN 32 ELSE 128 END), true,
                    created_at, created_at
             FROM networks WHERE id = $2",
        )
        .bind(subnet)
        .bind(network)
        .bind(cidr)
        .bind(gateway)
        .execute(&self.app.pool)
        .await
        .unwrap();
        subnet
    }

    /// A port with these addresses of subnets of one network.
    pub(crate) async fn insert_port(&self, name: &str, addresses: &[(Uuid, &str)]) -> Uuid {
        let port: Uuid = self.app.clock.new_id();
        let [a, b, c] = rand::random::<[u8; 3]>();
        sqlx::query(
            "INSERT INTO ports (id, project_id, network_id, name, labels, mac, created_at, updated_at)
             SELECT $1, project_id, network_id, $2, '{}', $3::macaddr, $4, $4 FROM subnets WHERE id = $5",
        )
        .bind(port)
        .bind(name)
        .bind(format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"))
        .bind(self.app.clock.now())
        .bind(addresses[0].0)
        .execute(&self.app.pool)
        .await
        .unwrap();
        for (subnet, address) in addresses {
            sqlx::query(
                "INSERT INTO subnet_addresses (subnet_id, address, port_id) VALUES ($1, $2::inet, $3)",
            )
            .bind(subnet)
            .bind(address)
            .bind(port)
            .execute(&self.app.pool)
            .await
            .unwrap();
        }
        port
    }

    /// Makes ports the cards of an instance of the project, in their order.
    pub(crate) async fn plug_ports(&self, instance: &str, ports: &[Uuid]) {
        for port in ports {
            sqlx::query(
                "UPDATE ports SET instance_id = i.id,
                        position = (SELECT count(*) FROM ports p WHERE p.instance_id = i.id)
                 FROM instances i WHERE ports.id = $1 AND i.name = $2",
            )
            .bind(port)
            .bind(instance)
            .execute(&self.app.pool)
            .await
            .unwrap();
        }
    }

    /// Puts a port into a group.
    pub(crate) async fn join_security_group(&self, port: Uuid, group: &str) {
        sqlx::query("INSERT INTO port_security_groups SELECT $1, id FROM security_groups WHERE name = $2")
            .bind(port)
            .bind(group)
            .execute(&self.app.pool)
            .await
            .unwrap();
    }
}
