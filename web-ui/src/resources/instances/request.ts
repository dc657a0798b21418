// What the page asks for, as the body of the call, and as a line for a shell.
import type { Schemas } from '../../api/client'
import { shellQuote } from '../../parts/format'

export interface Wishes {
  name: string
  image: string
  instance_type: string
  /** In place of the type's own. */
  vcpus: number | undefined
  memory_mib: number | undefined
  /** A network's name; empty for the default one, `null` for none. */
  network: string | null
  root_disk_gib: number | undefined
  ssh: string
  key_pairs: string[]
  placement_group: string
  /** A shared pool for the disk that it boots from; empty for the disk of its host. */
  pool: string
  /** Whether it starts elsewhere when its host dies. */
  restart: boolean
  user_data: string
  labels: string[]
}

export const nothing: Wishes = { name: '', image: '', instance_type: '', vcpus: undefined, memory_mib: undefined, network: '', root_disk_gib: undefined, ssh: '', key_pairs: [], placement_group: '', pool: '', restart: false, user_data: '', labels: [] }

/** Whether there is enough to ask for a plan. */
export const isAskable = (wishes: Wishes) => Boolean(wishes.name && wishes.image && wishes.instance_type)

export function requestOf(wishes: Wishes): Schemas['CreateInstance'] {
  const keys = wishes.ssh.split('\n').map((line) => line.trim()).filter(Boolean)
  const labels = Object.fromEntries(wishes.labels.map((pair) => { const [key = '', value = ''] = pair.split(/=(.*)/s); return [key, value] }))
  return {
    name: wishes.name,
    image: wishes.image,
    instance_type: wishes.instance_type,
    ...(wishes.vcpus === undefined ? {} : { vcpus: wishes.vcpus }),
    ...(wishes.memory_mib === undefined ? {} : { memory_mib: wishes.memory_mib }),
    ...(wishes.network === null ? { networks: [] } : wishes.network ? { networks: [{ network: wishes.network }] } : {}),
    ...(wishes.root_disk_gib === undefined ? {} : { root_disk_gib: wishes.root_disk_gib }),
    ...(keys.length > 0 ? { ssh_authorized_keys: keys } : {}),
    ...(wishes.key_pairs.length > 0 ? { key_pairs: wishes.key_pairs } : {}),
    ...(wishes.placement_group ? { placement_group: wishes.placement_group } : {}),
    ...(wishes.pool ? { root_volume: { pool: wishes.pool } } : {}),
    ...(wishes.restart ? { on_host_failure: 'restart' as const } : {}),
    ...(wishes.user_data ? { user_data: wishes.user_data } : {}),
    ...(wishes.labels.length > 0 ? { labels } : {}),
  }
}

/** The same request as a line of a shell. */
export function curlOf(origin: string, project: string, request: object): string {
  const url = `${origin}/v1/projects/${encodeURIComponent(project)}/instances`
  return `curl -sS -H "authorization: Bearer $TOKEN" ${shellQuote(url)} \\\n  --json ${shellQuote(JSON.stringify(request, null, 2))}`
}
