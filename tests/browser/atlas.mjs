// Drives the page of an atlas in Chromium: looks at two widths, search, mouse, link, time to draw, axe.
//
//   node atlas.mjs FOLDER     atlas.html and many.html of atlas_pages.py; pictures are left in FOLDER
//
// Exits with 1 and a line for each violation. CHROMIUM names the browser.
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import axe from 'axe-core'
import { chromium } from 'playwright-core'

const folder = resolve(process.argv[2])
const QUICK = 100 // milliseconds in which ten thousand models are drawn again
const problems = []
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync'],
})
for (const name of ['atlas.html', 'many.html']) {
  for (const width of [1280, 390]) for (const colorScheme of ['light', 'dark']) await look(name, width, colorScheme)
  await drive(name)
}
await browser.close()
for (const problem of problems) console.log(problem)
console.log(`pages of the atlas: ${problems.length} problems; pictures in ${folder}`)
process.exit(problems.length ? 1 : 0)

async function open(name, options = {}, hash = '') {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  page.on('request', (request) => {
    if (!request.url().startsWith('file:') && !request.url().startsWith('data:')) problems.push(`${name}: asks for ${request.url()}`)
  })
  page.on('pageerror', (error) => problems.push(`${name}: error: ${error.message}`))
  page.on('console', (message) => { if (message.type() === 'error') problems.push(`${name}: console: ${message.text()}`) })
  page.on('dialog', (dialog) => problems.push(`${name}: a dialog opened: ${dialog.message()}`))
  await page.goto(pathToFileURL(join(folder, name)).href + hash)
  await settled(page)
  return { page, context }
}

function settled(page) {
  return page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))
}

async function look(name, width, colorScheme) {
  const { page, context } = await open(name, { viewport: { width, height: 900 }, colorScheme })
  const say = (what) => problems.push(`${name}, ${width} px, ${colorScheme}: ${what}`)
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  if (sideways > 0) say(`the page scrolls sideways by ${sideways} px`)
  await page.evaluate(axe.source)
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
  for (const { id, help, nodes } of violations) say(`axe, ${id}: ${help}; ${nodes.length} times, first ${nodes[0].html.slice(0, 160)}`)
  await page.screenshot({ path: join(folder, `${name.replace('.html', '')}-${width}-${colorScheme}.png`), fullPage: true })
  await context.close()
}

/** The picked model and its neighbours, as the page shows them. */
function shown(page) {
  return page.evaluate(() => ({
    name: document.querySelector('#model h2').textContent,
    neighbours: [...document.querySelectorAll('#model tbody tr')].map((row) => row.querySelector('button').textContent),
    kin: [...document.querySelectorAll('#model tbody tr')].map((row) => row.cells[3]?.textContent),
  }))
}

async function drive(name) {
  const { page, context } = await open(name)
  const say = (what) => problems.push(`${name}: ${what}`)
  const data = JSON.parse(await page.locator('#data').textContent())
  const wanted = Math.floor(data.names.length / 2)
  await page.locator('#search').fill(data.names[wanted])
  await page.locator('#found button').first().click()
  const found = await shown(page)
  if (found.name !== data.names[wanted]) say(`the search for ${data.names[wanted]} leads to ${found.name}`)
  const near = data.neighbours[wanted].map((k) => data.names[k])
  if (`${found.neighbours}` !== `${near}`) say(`neighbours are ${found.neighbours}, expected ${near}`)
  if (`${found.kin}` !== `${data.kin[wanted]}`) say(`relations are ${found.kin}, expected ${data.kin[wanted]}`)
  await page.locator('#model tbody button').first().focus()
  await page.keyboard.press('Enter')
  if ((await shown(page)).name !== near[0]) say('Enter on a neighbour does not lead to it')
  const again = await open(name, {}, new URL(page.url()).hash)
  if ((await shown(again.page)).name !== near[0]) say('the link leads to another model')
  await again.context.close()
  // A click on the map where a model stands.
  const box = await page.locator('#map').boundingBox()
  await page.mouse.click(box.x + box.width / 2 + data.x[wanted] * box.width * 0.47, box.y + box.width / 2 + data.y[wanted] * box.width * 0.47)
  const hit = (await shown(page)).name
  const at = data.names.indexOf(hit)
  if (Math.hypot(data.x[at] - data.x[wanted], data.y[at] - data.y[wanted]) * box.width * 0.47 > 12) say(`a click at ${data.names[wanted]} picks ${hit}`)
  const milliseconds = await page.evaluate(() => { const start = performance.now(); for (let n = 0; n < 5; n++) draw(); return (performance.now() - start) / 5 })
  console.log(`${name}: ${data.names.length} models drawn in ${milliseconds.toFixed(0)} ms`)
  if (milliseconds > QUICK) say(`drawing takes ${milliseconds.toFixed(0)} ms, more than ${QUICK}`)
  await context.close()
}
