# Every resource that needs no host, at least once.
variable "tier" { default = "web" }
variable "policy" { default = "anti_affinity" }
variable "more_networks" { default = 0 }

provider "cumulo" { project = "shop" }

resource "cumulo_project" "shop" {
  name   = "shop"
  labels = { tier = var.tier }
}
locals { p = cumulo_project.shop.id }
resource "cumulo_user" "ada" {
  name     = "ada"
  password = "correct horse battery"
}
resource "cumulo_group" "ops" { name = "ops" }
resource "cumulo_group_member" "ada" {
  group = cumulo_group.ops.name
  user  = cumulo_user.ada.name
}
resource "cumulo_service_account" "ci" {
  project = local.p
  name    = "ci"
}
resource "cumulo_service_account_key" "ci" {
  project         = local.p
  service_account = cumulo_service_account.ci.name
}
resource "cumulo_policy" "read" {
  project  = local.p
  name     = "read"
  document = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = "compute:Get*", Resource = "*" }] })
}
resource "cumulo_policy_attachment" "read" {
  project         = local.p
  policy          = cumulo_policy.read.name
  service_account = cumulo_service_account.ci.name
}
resource "cumulo_cloud_policy" "read-all" {
  name     = "read-all"
  document = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = ["compute:Get*", "compute:List*"], Resource = "*" }] })
}
resource "cumulo_cloud_policy_attachment" "read" {
  policy = cumulo_cloud_policy.read-all.id
  group  = cumulo_group.ops.id
}
resource "cumulo_quota" "shop" {
  project   = local.p
  instances = 7
  networks  = 2
}
resource "cumulo_key_pair" "made" {
  project = local.p
  name    = "made"
}
resource "cumulo_image" "small" {
  project = local.p
  name    = "small"
  format  = "raw"
  file    = "${path.module}/disk.raw"
}
resource "cumulo_image_share" "other" {
  project = local.p
  image   = cumulo_image.small.name
  other   = cumulo_project.other.id
}
resource "cumulo_project" "other" { name = "other" }
resource "cumulo_volume" "data" {
  project    = local.p
  name       = "data"
  size_gib   = 1
  iops_limit = 100
}
resource "cumulo_snapshot_schedule" "nightly" {
  project = local.p
  name    = "nightly"
  volume  = cumulo_volume.data.name
  at      = "03:00"
  keep    = 3
}
resource "cumulo_network" "front" {
  project = local.p
  name    = "front"
}
resource "cumulo_subnet" "front" {
  project = local.p
  name    = "front"
  network = cumulo_network.front.name
  cidr    = "10.7.0.0/24"
}
resource "cumulo_router" "out" {
  project = local.p
  name    = "out"
}
resource "cumulo_router_interface" "front" {
  project = local.p
  router  = cumulo_router.out.name
  subnet  = cumulo_subnet.front.id
}
resource "cumulo_security_group" "web" {
  project = local.p
  name    = "web"
}
resource "cumulo_security_group_rule" "web" {
  for_each       = toset(["80", "443"])
  project        = local.p
  security_group = cumulo_security_group.web.name
  direction      = "ingress"
  protocol       = "tcp"
  port_first     = tonumber(each.key)
  remote_cidr    = "0.0.0.0/0"
}
resource "cumulo_port" "web" {
  project         = local.p
  name            = "web"
  network         = cumulo_network.front.id
  security_groups = [cumulo_security_group.web.name, "default"]
  depends_on      = [cumulo_subnet.front]
}
resource "cumulo_placement_group" "apart" {
  project = local.p
  name    = "apart"
  policy  = var.policy
}
data "cumulo_network" "front" {
  project = local.p
  name    = cumulo_network.front.name
}
output "vni" { value = data.cumulo_network.front.vni }

resource "cumulo_network" "more" {
  count   = var.more_networks
  project = local.p
  name    = "more-${count.index}"
}
