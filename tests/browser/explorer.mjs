// Drives pages of the explorer in Chromium: values against exact ones, mouse, touch, keyboard, link, command, looks.
//
//   node explorer.mjs FOLDER     pages and points of explorer_pages.py; pictures are left in FOLDER
//
// Exits with 1 and a line for each violation. CHROMIUM names the browser.
import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import axe from 'axe-core'
import { chromium } from 'playwright-core'

const folder = resolve(process.argv[2])
const ROUNDED = 6e-5 // of the four digits that a card shows
const problems = []
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync'],
})
const pages = readdirSync(folder).filter((name) => name.endsWith('.html'))
for (const name of pages) {
  for (const width of [1280, 390]) for (const colorScheme of ['light', 'dark']) await look(name, width, colorScheme)
  if (statSync(join(folder, name)).size > 1e7) problems.push(`${name} is larger than 10 MB`)
}
await values('explorer')
await values('many')
await values('decoders')
await metrics()
await mouse()
await touch()
await keyboard()
await outside()
await copies()
await browser.close()
for (const problem of problems) console.log(problem)
console.log(`${pages.length} pages of the explorer, ${problems.length} problems; pictures in ${folder}`)
process.exit(problems.length ? 1 : 0)

async function open(name, options = {}, hash = '') {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  const report = (what) => problems.push(`${name}: ${what}`)
  const address = pathToFileURL(join(folder, name)).href + hash
  page.on('request', (request) => {
    if (!request.url().startsWith('file:') && !request.url().startsWith('data:')) report(`asks for ${request.url()}`)
  })
  page.on('pageerror', (error) => report(`error: ${error.message}`))
  page.on('console', (message) => { if (message.type() === 'error') report(`console: ${message.text()}`) })
  page.on('dialog', (dialog) => report(`a dialog opened: ${dialog.message()}`))
  await page.goto(address)
  await settled(page)
  return { page, context, report }
}

function settled(page) {
  return page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))
}

/** What the page shows: each card, the coefficients, the command. */
async function shown(page) {
  await settled(page)
  return page.evaluate(() => ({
    cards: [...document.querySelectorAll('.card[data-quantity]')].map((card) => {
      const text = (quantity, what) => card.querySelector(`[data-quantity=${quantity}] ${what}`).textContent
      return {
        name: card.querySelector('h3').textContent, lost: card.classList.contains('lost'), says: card.querySelector('.says').textContent,
        loss: text('loss', 'b'), score: text('score', 'b'), bounds: [text('loss', '.bound'), text('score', '.bound')],
      }
    }),
    point: Object.fromEntries([...document.querySelectorAll('#sliders li')].map((row) => [row.querySelector('label').textContent, Number(row.querySelector('[type=number]').value)])),
    picked: [...document.querySelectorAll('#members [aria-pressed=true]')].map((own) => own.textContent),
    command: document.getElementById('command').textContent,
  }))
}

async function look(name, width, colorScheme) {
  const { page, context, report } = await open(name, { viewport: { width, height: 900 }, colorScheme, hasTouch: width < 800 })
  const say = (what) => report(`${width} px, ${colorScheme}: ${what}`)
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  if (sideways > 0) say(`the page scrolls sideways by ${sideways} px`)
  await page.evaluate(axe.source)
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
  for (const { id, help, nodes } of violations) say(`axe, ${id}: ${help}; ${nodes.length} times, first ${nodes[0].html.slice(0, 160)}`)
  const stem = join(folder, `${name.replace('.html', '')}-${width}-${colorScheme}`)
  await page.screenshot({ path: `${stem}-first.png` })
  await page.screenshot({ path: `${stem}.png`, fullPage: true })
  const [first, second] = await page.locator('#members button').all()
  await page.evaluate(() => { document.getElementById('by-name').open = true })
  await page.locator('#clear').click()
  await first.click()
  await second.click()
  await settled(page)
  await page.evaluate(() => scrollTo(0, 0))
  await page.screenshot({ path: `${stem}-line.png`, fullPage: true })
  await context.close()
}

/** The page's values at random points, against exact ones. One in twenty of all points may be outside its bound, so of 50 at most one in ten. */
async function values(name) {
  const points = JSON.parse(readFileSync(join(folder, `${name}-points.json`), 'utf8'))
  const { page, context, report } = await open(`${name}.html`)
  const beyond = {}
  let compared = 0
  for (const { at, exact } of points) {
    const hash = Object.entries(at).map(([name, own]) => `${encodeURIComponent(name)}:${own}`).join(',')
    await page.evaluate((own) => { location.hash = own }, `#pick=&at=${hash}`)
    await page.waitForFunction((own) => explorer.state.point.every((c, k) => Math.abs(c - (own[page.members[k].name] || 0)) < 1e-5), at)
    for (const card of (await shown(page)).cards) {
      const [loss, score] = exact[card.name]
      const [lossBound, scoreBound] = card.bounds.map((text) => (text === 'exact' ? 0 : Number(text.replace('± ', ''))))
      if (card.lost) { report(`nothing is known at ${hash}`); continue }
      compared += 1
      const off = [Math.abs(Number(card.loss) - loss) - lossBound - ROUNDED, Math.abs(Number(card.score) - score) - scoreBound - 10 * ROUNDED]
      off.forEach((own, which) => { if (!(own <= 0)) beyond[`${card.name} ${['loss', 'score'][which]}`] = (beyond[`${card.name} ${['loss', 'score'][which]}`] || 0) + 1 })
    }
  }
  console.log(`${name}.html: ${compared} values of ${points.length} points compared with exact ones; outside their bound: ${JSON.stringify(beyond)}`)
  if (compared < 50) report(`only ${compared} values were compared`)
  for (const [what, times] of Object.entries(beyond)) if (times > points.length / 10) report(`${what}: ${times} of ${points.length} outside the bound`)
  await context.close()
}

/** The metrics of the page against those of scikit-learn and SciPy. */
async function metrics() {
  const { page, context, report } = await open('explorer.html')
  for (const { metric, lists, value } of JSON.parse(readFileSync(join(folder, 'metrics.json'), 'utf8'))) {
    const own = await page.evaluate(([name, [labels, found]]) => METRICS[name](labels, found), [metric, lists])
    if (Math.abs(own - value) > 1e-9) report(`${metric} is ${own}, and not ${value}`)
  }
  await context.close()
}

async function mouse() {
  const { page, context, report } = await open('explorer.html')
  const before = await shown(page)
  if (before.picked.length !== 3) report(`the page opens with ${before.picked.length} picked members`)
  const knob = await page.locator('.between .handle').first().boundingBox()
  const [x, y] = [knob.x + knob.width / 2, knob.y + knob.height / 2]
  await page.mouse.move(x, y)
  await page.mouse.down()
  await page.mouse.move(x + 20, y + 10, { steps: 4 })
  await page.mouse.move(x + 30, y + 20, { steps: 4 })
  const during = await shown(page)
  await page.mouse.up()
  if (during.cards[0].loss === before.cards[0].loss) report('dragging in a figure changes nothing')
  const sum = Object.values(during.point).reduce((a, b) => a + b, 0)
  if (Math.abs(sum - 1) > 2e-3) report(`dragged off the hull: the sum is ${sum}`)
  const onMap = await page.locator('#map .handle .knob').boundingBox()
  await page.mouse.move(onMap.x + 5, onMap.y + 5)
  await page.mouse.down()
  await page.mouse.move(onMap.x + 400, onMap.y + 5, { steps: 5 })
  await page.mouse.up()
  const after = await shown(page)
  if (JSON.stringify(after.point) === JSON.stringify(during.point)) report('dragging on the map changes nothing')
  if (after.cards.some((card) => card.lost)) report('the point left the hull on the map')
  for (const [label, kind] of [['Go to the base', 'base'], ['Go to the centroid', 'centroid']]) {
    await page.locator(`#map [aria-label^="${label}"]`).click({ force: true })
    const there = await shown(page)
    if (!there.cards.every((card) => card.bounds.every((own) => own === 'exact'))) report(`${kind} is not exact`)
  }
  await page.locator('[name=quantity][value=score]').check()
  await settled(page)
  await page.locator('#map .member').first().hover({ force: true })
  if (!(await page.locator('#tip').isVisible())) report('no name is shown on hover')
  await context.close()
}

async function touch() {
  const { page, context, report } = await open('explorer.html', { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true })
  const before = await shown(page)
  const slice = page.locator('.between').first()
  await slice.scrollIntoViewIfNeeded()
  const box = await slice.boundingBox()
  await page.touchscreen.tap(box.x + box.width * 0.42, box.y + box.height * 0.62)
  const after = await shown(page)
  if (after.cards[0].loss === before.cards[0].loss) report('a tap in a figure changes nothing')
  const client = await context.newCDPSession(page)
  const finger = (type, dx) => client.send('Input.dispatchTouchEvent', { type, touchPoints: type === 'touchEnd' ? [] : [{ x: box.x + box.width * 0.42 + dx, y: box.y + box.height * 0.62 }] })
  await finger('touchStart', 0)
  for (const dx of [10, 20, 40]) await finger('touchMove', dx)
  const moved = await shown(page)
  await finger('touchEnd', 0)
  if (moved.cards[0].loss === after.cards[0].loss) report('a finger that moves in a figure changes nothing')
  await context.close()
}

async function keyboard() {
  const { page, context, report } = await open('explorer.html')
  const before = await shown(page)
  await page.locator('.between .handle').first().focus()
  await page.keyboard.press('Shift+ArrowRight')
  const moved = await shown(page)
  if (moved.cards[0].loss === before.cards[0].loss) report('an arrow key does not move the point')
  await page.locator('#sliders [type=range]').first().focus()
  await page.keyboard.press('ArrowRight')
  await page.keyboard.press('PageUp')
  const slid = await shown(page)
  if (slid.command === moved.command) report('an arrow key does not move a slider')
  if (slid.cards.some((card) => card.lost)) report('a slider left the hull')
  await page.locator('#map .member').last().focus()
  await page.keyboard.press('Enter')
  const picked = await shown(page)
  if (Math.abs(picked.picked.length - slid.picked.length) !== 1) report('Enter does not pick a member on the map')
  let reached = 0
  for (let press = 0; press < 80; press++) {
    await page.keyboard.press('Tab')
    const seen = await page.evaluate(() => {
      const own = document.activeElement
      const { outlineStyle, outlineWidth } = getComputedStyle(own)
      const knob = own.querySelector && own.querySelector('.knob')
      return { body: own === document.body, name: own.id || own.getAttribute('aria-label') || own.textContent.slice(0, 30), outlined: (outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2) || (knob && getComputedStyle(knob).strokeWidth === '3px') }
    })
    if (seen.body) break
    reached += 1
    if (!seen.outlined) report(`the focus is not seen on ${seen.name}`)
  }
  if (reached < 10) report(`Tab reaches only ${reached} parts`)
  await context.close()
}

/** Outside the hull the page says that nothing is known, and names the nearest scored point. */
async function outside() {
  const { page, context, report } = await open('explorer.html')
  await page.locator('#held').uncheck()
  const [first] = await page.locator('#sliders [type=number]').all()
  await first.fill('1.5')
  await first.press('Enter')
  const there = await shown(page)
  if (!there.cards.every((card) => card.lost && card.loss === '–' && card.says.startsWith('Nothing is known'))) report('a point outside the hull has values')
  if (!there.command.includes('--method=task_arithmetic --scale=1')) report(`the command outside the hull is ${there.command}`)
  await page.screenshot({ path: join(folder, 'outside.png'), fullPage: true })
  await page.locator('#held').check()
  const back = await shown(page)
  if (back.cards.some((card) => card.lost)) report('the sum at 1 does not lead back into the hull')
  await context.close()
}

/** The link reopens the same point; the command and its point are kept for explorer_pages.py to run. */
async function copies() {
  const { page, context, report } = await open('explorer.html', { permissions: ['clipboard-read', 'clipboard-write'] })
  const [range] = await page.locator('#sliders [type=range]').all()
  await range.focus()
  for (let press = 0; press < 7; press++) await page.keyboard.press('PageDown')
  const here = await shown(page)
  await page.locator('#copy').click()
  const command = await page.evaluate(() => navigator.clipboard.readText())
  if (command !== here.command) report(`the copied command is ${command}`)
  await page.locator('#link').click()
  const link = await page.evaluate(() => navigator.clipboard.readText())
  const again = await open('explorer.html', {}, new URL(link).hash)
  const there = await shown(again.page)
  if (JSON.stringify(there) !== JSON.stringify(here)) report(`the link leads elsewhere: ${JSON.stringify(there)} and not ${JSON.stringify(here)}`)
  const names = command.match(/--members=(\S+)/)[1].split(',')
  const numbers = new URL(link).hash.match(/at=([^&]*)/)[1].split(',').map((part) => Number(part.split(':')[1]))
  writeFileSync(join(folder, 'command.json'), JSON.stringify({ command, point: Object.fromEntries(names.map((name, k) => [name, numbers[k]])) }))
  await again.context.close()
  await context.close()
}
