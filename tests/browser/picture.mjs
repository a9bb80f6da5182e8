// Takes the picture of a page, or of one part of it, that the docs show:
//   node picture.mjs PAGE.html PICTURE.png [HEIGHT] [HASH] [SELECTOR]
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'

const [from, to, height = '860', hash = '', selector = ''] = process.argv.slice(2)
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] })
const page = await browser.newPage({ viewport: { width: 1280, height: Number(height) }, colorScheme: 'light', deviceScaleFactor: selector ? 2 : 1 })
await page.goto(pathToFileURL(resolve(from)).href + hash)
await page.waitForTimeout(500)
await (selector ? page.locator(selector) : page).screenshot({ path: to })
await browser.close()
