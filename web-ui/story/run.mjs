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

async function consoles(page) {
  await page.getByRole('tab', { name: 'Console' }).click()
  await page.getByText('Connected', { exact: true }).waitFor()
  await page.getByRole('application', { name: 'Display of web' }).waitFor()
  await accessible(page, 'the display')
  say('the display is open')
  await page.getByText('Serial port', { exact: true }).click()
  const terminal = page.locator('.xterm-rows')
  await terminal.getByText('live from here').waitFor()
  await accessible(page, 'the serial port')
  await page.getByRole('textbox', { name: 'Serial port of web' }).focus()
  // The first line only wakes the shell, which may still be starting.
  for (const end = performance.now() + PATIENCE; ; ) {
    await page.keyboard.type('\necho answer-$((41 + 1))\n')
    const answered = await terminal.getByText('answer-42').first().waitFor({ timeout: 5000 }).then(() => true, () => false)
    if (answered) break
    assert.ok(performance.now() < end, await terminal.innerText())
  }
  say('the guest answers what is typed')
  await page.keyboard.press('Control+Alt+Shift')
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Type a text', 'the keyboard is caught in the terminal')
  await page.getByRole('tab', { name: 'Overview' }).click()
}

async function load(page) {
  await page.getByRole('region', { name: 'The guest says' }).getByRole('status').waitFor()
  await page.getByRole('tab', { name: 'Load' }).click()
  await page.getByText(/^of all vCPUs: now .* %, on average/).waitFor({ timeout: PATIENCE })
  assert.equal(await page.locator('figure canvas').count(), 6)
  await accessible(page, 'the load')
  await page.getByRole('switch', { name: 'As a table' }).click()
  await page.getByRole('region', { name: 'What web used' }).getByRole('rowheader').first().waitFor()
  await page.getByRole('tab', { name: 'Overview' }).click()
  say('what it uses is drawn, and said in words')
  for (const [of, words] of [['volumes', /^read: now /], ['ports', /^received: now /]]) {
    const { items: [{ id }] } = await cloud.get(`/v1/projects/${project}/${of}`)
    await visit(page, `/projects/${project}/${of}/${id}?tab=load`, page.getByText(words).first())
    assert.equal(await page.locator('figure canvas').count(), 2)
    await accessible(page, `the load of ${of}`)
  }
  await visit(page, `/projects/${project}/instances/web`, page.getByText('running', { exact: true }).first())
  say('so is what passes through its disk and its card')
}

async function snapshotAndBack(page) {
  await page.getByRole('button', { name: 'Menu', exact: true }).click()
  await page.getByRole('menuitem', { name: 'Take a snapshot' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByRole('textbox', { name: 'Name' }).fill('before')
  await dialog.getByRole('button', { name: 'Take a snapshot' }).click()
  await dialog.waitFor({ state: 'detached' })
  await visit(page, `/projects/${project}/snapshots/before`, page.getByRole('heading', { name: 'before', exact: true }))
  await page.getByText('available', { exact: true }).first().waitFor({ timeout: PATIENCE })
  await cloud.post(`/v1/projects/${project}/instances/web/stop?wait=60`, { force: true })
  await page.getByRole('button', { name: 'Go back to it' }).click()
  await dialog.getByRole('button', { name: 'Go back to it' }).click()
  await dialog.waitFor({ state: 'detached' })
  await cloud.post(`/v1/projects/${project}/instances/web/start?wait=60`, {})
  await visit(page, `/projects/${project}/instances/web`, page.getByText('running', { exact: true }).first())
  say('a snapshot is taken, and gone back to')
}

async function pictures(page) {
  await visit(page, `/projects/${project}/topology`, page.getByRole('link', { name: /^web .*instance, running/ }))
  await accessible(page, 'the topology')
  await page.getByRole('link', { name: /^web .*instance, running/ }).focus()
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: 'web', exact: true }).waitFor()
  await visit(page, '/cloud/capacity', page.getByText(`more of type-${mark} find room now`))
  await accessible(page, 'the capacity')
  say('the drawing leads to the instance by keyboard; the map says what fits')
}

async function itsHost(page) {
  const { host } = await cloud.get(`/v1/projects/${project}/instances/web`)
  await visit(page, '/cloud/hosts', page.getByRole('link', { name: host.name, exact: true }))
  await page.getByRole('link', { name: host.name, exact: true }).click()
  await page.getByRole('tab', { name: 'Instances' }).click()
  await page.getByRole('link', { name: 'web', exact: true }).waitFor()
  await accessible(page, 'the instances of a host')
  await page.getByRole('link', { name: 'web', exact: true }).click()
  await page.getByRole('heading', { name: 'web', exact: true }).waitFor()
  say('a host names its instances, and leads to them')
}

async function keys(page) {
  await visit(page, `/projects/${project}/key_pairs`, page.getByText('No key pairs yet'))
  await page.getByRole('button', { name: 'Create key pair' }).first().click()
  await page.getByRole('textbox', { name: 'Name' }).fill('laptop')
  await page.getByRole('dialog').getByRole('button', { name: 'Create key pair' }).click()
  await page.getByText('BEGIN OPENSSH PRIVATE KEY').waitFor()
  const download = page.waitForEvent('download')
  await page.getByRole('button', { name: 'Download laptop.pem' }).click()
  assert.equal((await download).suggestedFilename(), 'laptop.pem')
  await page.getByRole('button', { name: 'I have kept it' }).click()
  await page.getByRole('link', { name: 'laptop' }).waitFor()
  say('a key pair is made, and its private half kept')
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
  // What was typed into a dialog is nobody else's to see.
  await page.getByRole('link', { name: 'Networks', exact: true }).click()
  await page.getByRole('button', { name: 'Create network' }).click()
  const name = page.getByRole('dialog').getByRole('textbox', { name: 'Name' })
  await name.fill('unfinished')
  await cloud.endOtherSessions()
  await page.getByRole('dialog').getByRole('button', { name: 'Create network' }).click()
  await page.getByText('Your session has ended').waitFor()
  assert.equal(await name.isVisible(), false)
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await name.waitFor()
  assert.equal(await name.inputValue(), 'unfinished')
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click()
  say('an expired session keeps the place, and hides what was begun')
}

async function phone(page) {
  await page.setViewportSize({ width: 390, height: 800 })
  for (const name of ['instances', 'instances/web', 'instances/web?tab=load', 'networks', 'quotas', 'topology', 'key_pairs', 'policy_attachments']) {
    await visit(page, `/projects/${project}/${name}`, page.getByRole('heading', { level: 1 }))
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    assert.ok(over <= 0, `${name} is ${over} px wider than a phone`)
  }
  await page.setViewportSize({ width: 1360, height: 850 })
  say('fits a phone')
}

async function simulated(page, user) {
  await visit(page, `/projects/${project}/policies/look?tab=simulate`, page.getByRole('button', { name: 'Ask' }))
  await page.getByRole('combobox', { name: 'User' }).fill(user)
  await page.keyboard.press('Escape')
  await page.getByRole('textbox', { name: 'Action' }).fill('compute:GetInstance compute:DeleteInstance')
  await page.getByRole('textbox', { name: 'Resource' }).fill('instance/web')
  await page.getByRole('button', { name: 'Ask' }).click()
  await page.getByText('KeepIt in look').first().waitFor()
  await page.getByText('Look in look').first().waitFor()
  await accessible(page, 'the simulator')
  await visit(page, `/projects/${project}/instances/web?tab=who_can`, page.getByRole('combobox', { name: 'Action' }))
  await page.getByText('Allow by Everything in administrator').waitFor()
  assert.equal(await page.getByText(user).count(), 0, 'nobody may delete it who is denied that')
  await page.getByRole('combobox', { name: 'Action' }).fill('compute:GetInstance')
  await page.getByText('Allow by Look in look').waitFor()
  await page.keyboard.press('Escape')
  await accessible(page, 'who can')
  say('the simulator tells both decisions, and the instance who may what')
}

/** An administrator has made the password: whoever signs in with it goes no further than to a new one. */
async function choosePassword(page, secret) {
  await page.getByRole('heading', { name: 'Choose a new password' }).waitFor()
  await accessible(page, 'a new password')
  const next = page.getByLabel('New password', { exact: true })
  const change = async (text) => {
    await next.fill(text)
    await page.getByLabel('New password once more').fill(text)
    await page.getByRole('button', { name: 'Change password' }).click()
  }
  await change(secret)
  await page.getByText('not the current password').waitFor()
  await change('short')
  await page.getByText('at least 12 characters', { exact: true }).waitFor()
  await page.reload()
  await page.getByLabel('Current password').fill(secret)
  await change(`${secret} again`)
  assert.ok(page.url().includes(`/projects/${project}/instances`), page.url())
  await next.waitFor({ state: 'detached' })
  say('a password by an administrator is changed before anything is seen')
}

async function deniedUser(admin) {
  const name = `eve-${mark}`
  const secret = `horse-battery-${mark}`
  await cloud.post('/v1/users', { name, password: secret })
  const page = await open()
  try {
    await visit(page, `/projects/${project}/instances`, page.getByRole('textbox', { name: 'User name' }))
    await signIn(page, name, secret)
    await choosePassword(page, secret)
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
    await simulated(admin, name)
  } finally {
    await keepTrace(page, 'denied')
    await cloud.delete(`/v1/users/${name}`)
  }
}

/** Somebody else can kill the API and start it again, where CUMULO_HANDS says that somebody listens. */
async function please(what) {
  const done = new Promise((resolve) => process.stdin.once('data', resolve).resume())
  console.log(`please: ${what} the API`)
  await done
  process.stdin.pause()
}

async function lostConnection(page) {
  await page.getByText('Live', { exact: true }).waitFor()
  await please('kill')
  await page.getByText('Connection lost; trying again.').waitFor()
  await accessible(page, 'a lost connection')
  await please('start')
  // It may be there before the page is: then it is caught up with.
  await cloud.post(`/v1/projects/${project}/networks`, { name: 'meanwhile' })
  await page.getByRole('link', { name: 'meanwhile' }).waitFor()
  await page.getByText('Connection lost; trying again.').waitFor({ state: 'detached' })
  await cloud.delete(`/v1/projects/${project}/networks/meanwhile`)
  say('the page says that the connection is lost, and catches up')
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
  await consoles(page)
  await load(page)
  await snapshotAndBack(page)
  await keys(page)
  await pictures(page)
  await itsHost(page)
  await hostileText(page)
  if (process.env.CUMULO_HANDS) await lostConnection(page)
  await expiredSession(page)
  await phone(page)
  await deniedUser(page)
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
