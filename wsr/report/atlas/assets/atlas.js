// The page of an atlas: a canvas with all models, a search field, and what is near the picked one.
'use strict'

const page = JSON.parse(document.getElementById('data').textContent)
const at = (id) => document.getElementById(id)
const MOST_FOUND = 12
const REACH = 12 // pixels within which the pointer touches a model

const lower = page.names.map((name, k) => `${name} ${page.dataset[k]} ${page.sources[k]}`.toLowerCase())
const group = page.dataset.map((name) => page.datasets.indexOf(name))
const canvas = at('map')
const pen = canvas.getContext('2d')
let picked = null
let view = d3.zoomIdentity
let frame = null
let side = 0

const nearby = d3.quadtree(d3.range(page.names.length), (k) => page.x[k], (k) => page.y[k])
const shade = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
/** A colour for each large dataset, one for the other datasets, and one for the picked model's dataset among these. */
const colours = () => [...page.datasets.map((_, place) => shade(`--wsr-${place + 1}`)), shade('--wsr-muted'), shade('--ink')]
const colourOf = (k) => group[k] >= 0 ? group[k] : page.datasets.length + (picked !== null && page.dataset[k] === page.dataset[picked])

/** Where a model stands on the canvas, in CSS pixels. */
const where = (k) => view.apply([side / 2 + page.x[k] * side * 0.47, side / 2 + page.y[k] * side * 0.47])

function draw() {
  frame = null
  const ratio = window.devicePixelRatio || 1
  if (canvas.width !== side * ratio) canvas.width = canvas.height = side * ratio
  pen.setTransform(ratio, 0, 0, ratio, 0, 0)
  pen.clearRect(0, 0, side, side)
  const shades = colours()
  const radius = Math.min(6, (page.names.length > 3000 ? 1.6 : 3) * Math.sqrt(view.k))
  for (const colour of d3.range(shades.length)) {
    pen.fillStyle = shades[colour]
    pen.beginPath()
    for (let k = 0; k < page.names.length; k++) {
      if (colourOf(k) !== colour) continue
      const [x, y] = where(k)
      if (x < -8 || y < -8 || x > side + 8 || y > side + 8) continue
      pen.moveTo(x + radius, y)
      pen.arc(x, y, radius, 0, 7)
    }
    pen.globalAlpha = 0.8
    pen.fill()
  }
  pen.globalAlpha = 1
  if (picked !== null) {
    for (const k of page.neighbours[picked]) ring(k, radius + 3, 1.5)
    ring(picked, radius + 5, 3)
  }
}

function ring(k, radius, width) {
  const [x, y] = where(k)
  pen.strokeStyle = shade('--ink')
  pen.lineWidth = width
  pen.beginPath()
  pen.arc(x, y, radius, 0, 7)
  pen.stroke()
}

function redraw() {
  frame ||= requestAnimationFrame(draw)
}

/** The model under a point of the canvas, or undefined. */
function under([x, y]) {
  const [left, top] = view.invert([x, y])
  const unit = side * 0.47
  return nearby.find((left - side / 2) / unit, (top - side / 2) / unit, REACH / unit / view.k)
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

function button(k, ...more) {
  const made = element('button', { type: 'button', 'data-model': k }, dot(k), element('span', {}, page.names[k]), ...more)
  made.addEventListener('click', () => pick(k))
  return made
}

function dot(k) {
  const made = element('i', { class: 'dot', 'aria-hidden': 'true' })
  made.style.background = group[k] < 0 ? 'var(--wsr-muted)' : `var(--wsr-${group[k] + 1})`
  return made
}

function pick(k) {
  picked = k
  const facts = [['dataset', page.dataset[k]], ['length of the task vector', page.length[k]], ['cluster', page.cluster[k] < 0 ? 'none' : page.cluster[k] + 1], ['source', page.sources[k]]]
  const kin = page.kin[k] // undefined for most models
  const rows = page.neighbours[k].map((other, rank) => element('tr', { class: page.cosines[k][rank] < page.noise ? 'chance' : '' },
    element('td', {}, button(other)), element('td', { class: 'number' }, page.cosines[k][rank].toFixed(3)), element('td', {}, page.dataset[other]),
    ...(kin ? [element('td', {}, kin[rank])] : [])))
  const copies = page.copies[k]
  at('model').replaceChildren(
    element('h2', {}, page.names[k]),
    element('dl', {}, ...facts.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, String(value))])),
    ...(copies.length ? [element('h3', {}, 'Same weights under another name'), element('p', { class: 'names-list' }, ...copies.map((other) => button(other)))] : []),
    element('h3', {}, 'Most similar models'),
    element('div', { class: 'scroll', role: 'region', 'aria-label': 'Most similar models', tabindex: '0' },
      element('table', {}, element('thead', {}, element('tr', {}, ...['Model', 'Cosine', 'Dataset', ...(kin ? ['Relation'] : [])].map((name) => element('th', { scope: 'col', class: name === 'Cosine' ? 'number' : '' }, name)))), element('tbody', {}, ...rows))),
  )
  history.replaceState(null, '', `#${new URLSearchParams({ model: page.names[k] })}`)
  redraw()
}

function search() {
  const words = at('search').value.toLowerCase().split(/\s+/).filter(Boolean)
  const found = []
  for (let k = 0; words.length && k < lower.length && found.length <= MOST_FOUND; k++) {
    if (words.every((word) => lower[k].includes(word))) found.push(k)
  }
  at('found').replaceChildren(...found.slice(0, MOST_FOUND).map((k) => element('li', {}, button(k))),
    ...(found.length > MOST_FOUND ? [element('li', { class: 'muted' }, 'and more')] : words.length && !found.length ? [element('li', { class: 'muted' }, 'none')] : []))
}

function resize() {
  side = canvas.clientWidth
  redraw()
}

const zoom = d3.zoom().scaleExtent([0.8, 60]).on('zoom', (event) => {
  view = event.transform
  redraw()
})
d3.select(canvas).call(zoom)
canvas.addEventListener('click', (event) => {
  const k = under(d3.pointer(event, canvas))
  if (k !== undefined) pick(k)
})
canvas.addEventListener('pointermove', (event) => {
  const k = under(d3.pointer(event, canvas))
  const tip = at('tip')
  tip.hidden = k === undefined
  canvas.style.cursor = k === undefined ? 'grab' : 'pointer'
  if (k === undefined) return
  tip.textContent = `${page.names[k]}\n${page.dataset[k]}`
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`
  tip.style.top = `${event.clientY + 14}px`
})
canvas.addEventListener('pointerleave', () => { at('tip').hidden = true })
at('search').addEventListener('input', search)
new ResizeObserver(resize).observe(canvas)
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw)

const others = page.dataset.some((name) => !page.datasets.includes(name))
at('legend').append(...page.datasets.map((name, place) => {
  const mark = element('i', { class: 'dot', 'aria-hidden': 'true' })
  mark.style.background = `var(--wsr-${place + 1})`
  return element('span', {}, mark, name)
}), ...(others ? [element('span', {}, element('i', { class: 'dot', 'aria-hidden': 'true' }), 'other datasets')] : []))
const asked = new URLSearchParams(location.hash.slice(1)).get('model')
pick(Math.max(page.names.indexOf(asked), 0))
resize()
