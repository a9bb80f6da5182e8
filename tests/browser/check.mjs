// Looks at report pages in Chromium as readers do: two widths, light and dark, by keyboard, on paper.
//
//   node check.mjs FOLDER     each FOLDER/*/report.html; pictures and PDFs are left beside the pages
//
// Exits with 1 and a line for each violation. CHROMIUM names the browser.
import { readdirSync, existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import axe from 'axe-core'
import { chromium } from 'playwright-core'

const WIDTHS = [1280, 390]
const SCHEMES = ['light', 'dark']
// Lines of the index and tables are held to one line and to the page where the window is this wide.
const DESK = 1280
// The findings and both pictures begin within this height of a desk's window.
const FIRST_SCREEN = 800

const folder = resolve(process.argv[2])
const pages = readdirSync(folder).filter((name) => existsSync(join(folder, name, 'report.html')))
if (!pages.length) throw new Error(`${folder} holds no */report.html`)
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync'],
})
const problems = []
for (const name of pages) {
  for (const width of WIDTHS) for (const colorScheme of SCHEMES) await look(name, width, colorScheme)
  await walk(name)
  await print(name)
}
await browser.close()
for (const problem of problems) console.log(problem)
console.log(`${pages.length} pages, ${problems.length} problems; pictures and PDFs in ${folder}`)
process.exit(problems.length ? 1 : 0)

async function open(name, width, colorScheme) {
  const context = await browser.newContext({ viewport: { width, height: FIRST_SCREEN }, colorScheme })
  const page = await context.newPage()
  const requests = []
  page.on('request', (request) => requests.push(request.url()))
  const address = pathToFileURL(join(folder, name, 'report.html')).href
  await page.goto(address)
  const others = requests.filter((url) => url !== address && !url.startsWith('data:'))
  const report = (what) => problems.push(`${name}, ${width} px, ${colorScheme}: ${what}`)
  if (others.length) report(`asks for ${others[0]}`)
  return { page, context, report }
}

/** Widths, first screen, accessibility rules; folded tables are looked at open. */
async function look(name, width, colorScheme) {
  const { page, context, report } = await open(name, width, colorScheme)
  const picture = (part) => join(folder, name, `${width}-${colorScheme}${part}.png`)
  await page.screenshot({ path: picture('-first') })
  await page.evaluate(() => document.querySelectorAll('details').forEach((own) => (own.open = true)))
  for (const what of await page.evaluate(wide, width >= DESK)) report(what)
  if (width >= DESK) for (const what of await page.evaluate(first, FIRST_SCREEN)) report(what)
  await page.evaluate(axe.source)
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
  for (const { id, help, nodes } of violations) {
    report(`axe, ${id}: ${help}; ${nodes.length} times, first ${nodes[0].html.slice(0, 160)}`)
  }
  await page.evaluate(() => document.querySelectorAll('details').forEach((own) => (own.open = false)))
  await page.screenshot({ path: picture(''), fullPage: true })
  await context.close()
}

/** What is wider than its place. */
function wide(desk) {
  const found = []
  const root = document.documentElement
  if (root.scrollWidth > root.clientWidth) found.push(`the page scrolls sideways: ${root.scrollWidth} px`)
  if (!desk) return found
  for (const own of document.querySelectorAll('.scroll')) {
    const over = own.scrollWidth - own.clientWidth
    if (over > 0) found.push(`the table ${own.getAttribute('aria-label')} scrolls sideways by ${over} px`)
  }
  for (const row of document.querySelectorAll('.index tr')) {
    const height = row.getBoundingClientRect().height
    if (height > 46) found.push(`a line of the index is ${height} px high: ${row.textContent.slice(0, 60)}`)
  }
  // Sections of earlier versions have no short forms: their lines are cut, and whole in their section.
  for (const row of document.querySelectorAll('.index tr')) {
    const link = row.querySelector('a[href^="#"]')
    if (link && !document.querySelector(link.hash)?.querySelector('.headline')) continue
    for (const cell of row.querySelectorAll('th, td, a')) {
      if (cell.scrollWidth > cell.clientWidth + 1 && cell.clientWidth) found.push(`cut in the index: ${cell.textContent}`)
    }
  }
  return found
}

/** What should be on the first screen and is not, where the page has headlines. */
function first(height) {
  if (!document.querySelector('.headline')) return []
  const begin = (element) => element.getBoundingClientRect().top + scrollY
  const found = []
  for (const line of document.querySelectorAll('.summary li')) {
    if (begin(line) > height) found.push(`below the first screen: ${line.textContent.slice(0, 60)}`)
  }
  for (const figure of document.querySelectorAll('.story figure svg')) {
    if (begin(figure) > height - 200) found.push(`a picture begins at ${begin(figure)} px`)
  }
  return found
}

/** The Tab key reaches every link, table and fold, shows where it is, and Enter unfolds. */
async function walk(name) {
  const { page, context, report } = await open(name, DESK, 'light')
  const wanted = await page.evaluate(() => {
    const all = [...document.querySelectorAll('a[href], summary, [tabindex="0"]')]
    const shown = all.filter((own) => own.closest('details') === null || own.tagName === 'SUMMARY' || own.closest('details').open)
    shown.forEach((own, place) => (own.dataset.place = place))
    return shown.length
  })
  const reached = []
  for (let press = 0; press < wanted; press++) {
    await page.keyboard.press('Tab')
    const now = await page.evaluate(() => {
      const own = document.activeElement
      const { outlineStyle, outlineWidth } = getComputedStyle(own)
      const box = own.getBoundingClientRect()
      const seen = box.width > 0 && box.bottom > 0 && box.top < innerHeight
      return {
        place: own.dataset.place, text: own.textContent.slice(0, 40), seen,
        outlined: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2,
      }
    })
    if (now.place === undefined) break
    reached.push(Number(now.place))
    if (!now.outlined) report(`the focus is not seen on ${now.text}`)
    if (!now.seen) report(`the focus is off the screen on ${now.text}`)
  }
  const inOrder = reached.every((place, press) => place === press)
  if (reached.length !== wanted || !inOrder) report(`Tab reaches ${reached.length} of ${wanted}, in order: ${inOrder}`)
  await page.evaluate(() => document.querySelector('.skip')?.focus())
  await page.keyboard.press('Enter')
  if (!(await page.evaluate(() => document.activeElement.id === 'findings'))) report('the skip link leads nowhere')
  for (const fold of await page.locator('summary').all()) {
    await fold.focus()
    await page.keyboard.press('Enter')
    if (!(await fold.evaluate((own) => own.parentElement.open))) report('Enter does not unfold a table')
  }
  await context.close()
}

/** On paper nothing is folded away or cut. */
async function print(name) {
  const { page, context, report } = await open(name, DESK, 'dark')
  await page.pdf({ path: join(folder, name, 'report.pdf'), format: 'A4', printBackground: true, margin: margins() })
  await page.emulateMedia({ media: 'print' })
  await page.setViewportSize({ width: 700, height: 1000 }) // the width of A4 between these margins
  for (const what of await page.evaluate(() => {
    const found = []
    for (const own of document.querySelectorAll('details.table table')) {
      if (!own.getBoundingClientRect().height) found.push(`folded away on paper: ${own.closest('details').textContent.slice(0, 40)}`)
    }
    for (const own of document.querySelectorAll('.scroll')) {
      const over = own.firstElementChild.getBoundingClientRect().right - document.body.clientWidth
      if (over > 1) found.push(`cut on paper by ${over} px: ${own.getAttribute('aria-label')}`)
    }
    return found
  })) report(what)
  await context.close()
}

function margins() {
  return { top: '14mm', bottom: '14mm', left: '12mm', right: '12mm' }
}
