// The first-time story in a real browser against a real cloud. CUMULO_URL, CUMULO_USERNAME, CUMULO_PASSWORD and
// CUMULO_IMAGE, a file for the fast test guest, say where. What it makes it deletes.
import assert from 'node:assert/strict'
import { readFileSync, mkdirSync } from 'node:fs'
import { chromium } from 'playwright-core'
import { Cloud } from './cloud.mjs'

const { CUMULO_URL: url, CUMULO_USERNAME: username, CUMULO_PASSWORD: password } = process.env
const chrome = process.env.CHROMIUM ?? '/usr/bin/chromium'
const traces = process.env.CUMULO_TRACES ?? '/tmp/cumulo-console'
const mark = `s${Date.now().toString(36)}`
const project = `story-${mark}`
const PATIENCE = 180_000

const axe = readFileSync(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8')
const cloud = await Cloud.signIn(url, username, password)
const browser = await chromium.launch({ executablePath: chrome, args: ['--no-sandbox', '--disable-dev-shm-usage'] })
const violations = []

function say(text) {
  console.log(`console: ${text} (${(performance.now() / 1000).toFixed(1)} s)`)
}

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 850 }, ...options })
  context.setDefaultTimeout(30_000)
  await context.tracing.start({ screenshots: true, snapshots: true })
  const page = await context.newPage()
  page.on('console', (message) => {
    if (message.text().includes('Content Security Policy')) violations.push(message.text())
  })
  page.on('pageerror', (error) => violations.push(String(error)))
  page.on('request', (request) => {
    const origin = new URL(request.url()).origin
    if (origin !== new URL(url).origin && origin !== 'null') violations.push(`a request to ${origin}`)
  })
  return page
}

/** A laboratory's network comes and goes under the browser; a person would load the page once more. */
async function visit(page, path, seen) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await page.goto(url + path, { waitUntil: 'domcontentloaded' })
      return await seen.waitFor({ timeout: 15_000 })
    } catch (error) {
      if (attempt === 4) throw error
    }
  }
}

async function signIn(page, name, secret) {
  await page.getByRole('textbox', { name: 'User name' }).fill(name)
  await page.getByLabel('Password', { exact: true }).fill(secret)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

/** Nothing serious or critical is found by axe-core. The script comes by the debugger: the page's policy lets none in. */
async function accessible(page, what) {
  await page.evaluate(axe)
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
  const bad = found.violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
  const words = bad.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary?.slice(0, 160)}`).join(' | ')}`)
  violations.push(...words.map((text) => `axe, ${what}: ${text}`))
}

async function firstInstance(page) {
  const field = page.getByRole('textbox', { name: 'User name' })
  await visit(page, `/projects/${project}/instances`, field)
  await accessible(page, 'sign-in')
  await signIn(page, username, 'not the password')
  await page.getByText('User name or password is wrong').waitFor()
  await signIn(page, username, password)
  await page.getByText('No instances yet').waitFor()
  assert.equal(await page.evaluate(() => document.cookie), '', 'a script can read the session')
  assert.ok(!(await page.evaluate(() => JSON.stringify({ ...localStorage }))).includes('eyJ'), 'a token is stored')
  say('signed in; the page holds no token')

  await page.getByRole('link', { name: 'Create instance' }).click()
  await page.getByRole('textbox', { name: 'Name' }).fill('Not A Name')
  await page.getByRole('checkbox', { name: new RegExp(`type-${mark}`) }).click()
  await page.getByText('name', { exact: false }).first().waitFor()
  await page.locator('[aria-invalid=true]').waitFor()
  await page.getByRole('textbox', { name: 'Name' }).fill('web')
  await page.getByText('A host takes it at once.').waitFor()
  await page.getByText('0 → 1 of').first().waitFor()
  await accessible(page, 'create an instance')
  say('the plan is shown while typing')
  await page.getByRole('button', { name: 'Create instance' }).click()
  await page.getByRole('heading', { name: 'web', exact: true }).waitFor()
  await page.getByText('running', { exact: true }).first().waitFor({ timeout: PATIENCE })
  await page.getByText('The machine was defined').waitFor()
  await accessible(page, 'an instance')
  say('an instance runs, and the page said so by itself')
  await page.getByRole('tab', { name: 'Serial log' }).click()
  await page.getByText('cumulo-test: ready').waitFor({ timeout: PATIENCE })
  say('its serial log is read')
}

async function hostileText(page) {
  const hostile = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
  await cloud.post(`/v1/projects/${project}/networks`, { name: 'hostile', description: hostile })
  await visit(page, `/projects/${project}/networks`, page.getByText(hostile))
  assert.equal(await page.locator('img[src=x]').count(), 0)
  assert.notEqual(await page.title(), 'owned')
  // What another client does appears without a reload.
  await cloud.post(`/v1/projects/${project}/networks`, { name: 'sudden' })
  await page.getByRole('link', { name: 'sudden' }).waitFor()
  await cloud.delete(`/v1/projects/${project}/networks/sudden`)
  await page.getByRole('link', { name: 'sudden' }).waitFor({ state: 'detached' })
  await accessible(page, 'a list')
  say('hostile text is text; changes appear by themselves')
}

async function expiredSession(page) {
  await page.getByRole('searchbox').fill('host')
  await cloud.endOtherSessions()
  await page.getByRole('link', { name: 'Subnets' }).click()
  await page.getByText('Your session has ended').waitFor()
  assert.ok(page.url().includes(`/projects/${project}/subnets`), page.url())
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByRole('heading', { name: 'Subnets' }).waitFor()
  say('an expired session keeps the place')
}

async function phone(page) {
  await page.setViewportSize({ width: 390, height: 800 })
  for (const name of ['instances', 'networks', 'quotas']) {
    await visit(page, `/projects/${project}/${name}`, page.getByRole('heading', { level: 1 }))
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    assert.ok(over <= 0, `${name} is ${over} px wider than a phone`)
  }
  await page.setViewportSize({ width: 1360, height: 850 })
  say('fits a phone')
}

async function deniedUser() {
  const name = `eve-${mark}`
  const secret = `horse-battery-${mark}`
  await cloud.post('/v1/users', { name, password: secret })
  const page = await open()
  try {
    await visit(page, `/projects/${project}/instances`, page.getByRole('textbox', { name: 'User name' }))
    await signIn(page, name, secret)
    // Nobody learns of a project that they may not get.
    await page.getByText(/Not found|You may not do this/).first().waitFor()
    await cloud.post(`/v1/projects/${project}/policies`, { name: 'look', document: { Version: '2012-10-17', Statement: [
      { Sid: 'Look', Effect: 'Allow', Action: ['project:GetProject', 'compute:ListInstances', 'compute:GetInstance'], Resource: ['*'] },
      { Sid: 'KeepIt', Effect: 'Deny', Action: ['compute:DeleteInstance'], Resource: ['*'] },
    ] } })
    await cloud.post(`/v1/projects/${project}/policy_attachments`, { policy: 'look', user: name })
    await visit(page, `/projects/${project}/instances/web`, page.getByRole('heading', { name: 'web', exact: true }))
    await page.getByRole('button', { name: 'Delete' }).click()
    await page.getByLabel('Type web to confirm').fill('web')
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
    await page.getByText('You may not do this').waitFor()
    await page.getByText('compute:DeleteInstance', { exact: true }).waitFor()
    await page.getByText('Denied by KeepIt (look)').waitFor()
    say('a denied user sees which statement denies')
  } finally {
    await keepTrace(page, 'denied')
    await cloud.delete(`/v1/users/${name}`)
  }
}

let failed = true
async function keepTrace(page, name) {
  mkdirSync(traces, { recursive: true })
  await page.context().tracing.stop(failed ? { path: `${traces}/${name}.zip` } : {})
}

const page = await open()
try {
  await cloud.furnish(project, `type-${mark}`, process.env.CUMULO_IMAGE)
  await firstInstance(page)
  await hostileText(page)
  await expiredSession(page)
  await phone(page)
  await deniedUser()
  assert.deepEqual(violations, [], 'violations of the page\'s policy, errors or foreign requests')
  failed = false
  say('done')
} catch (error) {
  await page.screenshot({ path: `${traces}/last.png` }).catch(() => {})
  console.error(`console: failed at ${page.url()}; traces are in ${traces}`)
  throw error
} finally {
  await keepTrace(page, 'story')
  await browser.close()
  await cloud.clear(project, `type-${mark}`)
}
