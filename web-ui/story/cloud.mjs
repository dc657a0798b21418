// The API, as another client of it.
import { readFileSync } from 'node:fs'

export class Cloud {
  #url
  #token
  #user

  static async signIn(url, username, password) {
    const cloud = new Cloud()
    cloud.#url = url
    cloud.#user = username
    const { access_token } = await cloud.post('/v1/auth/login', { username, password })
    cloud.#token = access_token
    return cloud
  }

  async #call(method, path, body, headers = { 'content-type': 'application/json' }) {
    const authorization = this.#token ? { authorization: `Bearer ${this.#token}` } : {}
    const response = await fetch(this.#url + path, { method, body, headers: { ...headers, ...authorization } })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
    return response.status === 204 ? undefined : response.json()
  }

  get = (path) => this.#call('GET', path)
  post = (path, body) => this.#call('POST', path, JSON.stringify(body))
  delete = (path) => this.#call('DELETE', path)

  /** A project with an image and a size of instance. */
  async furnish(project, type, file) {
    await this.post('/v1/projects', { name: project })
    await this.post('/v1/instance_types', { name: type, vcpus: 1, memory_mib: 256, root_disk_gib: 1 })
    await this.post(`/v1/projects/${project}/images`, { name: 'guest', format: 'qcow2' })
    await this.#call('PUT', `/v1/projects/${project}/images/guest/content`, readFileSync(file), { 'content-type': 'application/octet-stream' })
  }

  endOtherSessions = () => this.delete(`/v1/users/${this.#user}/sessions`)

  /** Takes away what the story made; says what it could not. */
  async clear(project, type) {
    const steps = [
      () => this.delete(`/v1/projects/${project}/instances/web?wait=60`),
      async () => {
        const { items } = await this.get(`/v1/projects/${project}/snapshots`)
        for (const { id } of items) await this.delete(`/v1/projects/${project}/snapshots/${id}?wait=60`)
      },
      () => this.delete(`/v1/projects/${project}/images/guest`),
      async () => {
        const { items } = await this.get(`/v1/projects/${project}/policy_attachments`)
        for (const { id } of items) await this.delete(`/v1/projects/${project}/policy_attachments/${id}`)
      },
      () => this.delete(`/v1/projects/${project}`),
      () => this.delete(`/v1/instance_types/${type}`),
    ]
    for (const step of steps) await step().catch((error) => console.error(`console: left behind: ${error.message}`))
  }
}
