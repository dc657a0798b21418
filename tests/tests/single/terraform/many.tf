# Two hundred instances, each on a network that is large enough.
provider "cumulo" { project = "many" }

resource "cumulo_project" "many" { name = "many" }
locals { p = cumulo_project.many.id }

resource "cumulo_quota" "many" {
  project    = local.p
  instances  = 200
  vcpus      = 200
  memory_mib = 200 * 256
  volumes    = 200
  ports      = 200
  disk_gib   = 200
}

resource "cumulo_image" "nothing" {
  project = local.p
  name    = "nothing"
  format  = "raw"
  file    = "disk.raw"
}

resource "cumulo_network" "many" {
  project = local.p
  name    = "many"
}

resource "cumulo_subnet" "many" {
  project = local.p
  name    = "many"
  network = cumulo_network.many.id
  cidr    = "10.20.0.0/16"
}

resource "cumulo_instance" "many" {
  for_each      = toset([for number in range(200) : format("vm-%03d", number)])
  project       = local.p
  name          = each.key
  image         = cumulo_image.nothing.id
  instance_type = "small"
  networks      = [{ network = cumulo_subnet.many.network }]
  depends_on    = [cumulo_quota.many]
}
