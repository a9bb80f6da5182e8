// The page: its state, what happens to it, and the texts beside the figures.
'use strict'

const page = JSON.parse(document.getElementById('data').textContent)
const at = (id) => document.getElementById(id)
const COMMANDS_DIGITS = 6

class App {
  constructor() {
    const bases = new Map(Object.entries(page.bases).map(([degree, inverse]) => [Number(degree), new Basis(Number(degree), floats(inverse), page.nodes)]))
    this.surfaces = page.datasets.map((record) => new Surface(record, bases.get(record.degree)))
    this.centroid = page.members.map(() => 1 / page.members.length)
    this.state = { picks: [], point: this.centroid, quantity: 'loss', held: true, theme: '' }
    this.cards = this.surfaces.map((surface, number) => new Card(surface, number, this))
    this.trades = d3.cross(d3.range(this.surfaces.length), d3.range(this.surfaces.length)).filter(([a, b]) => a < b).slice(0, 3).map((pair) => ({ pair, figure: this.trade(pair) }))
    this.map = new PopulationMap(at('map'), page, this)
    this.names()
    this.controls()
    this.read() || this.begin()
  }

  /** The three members with the lowest mean rank, and their middle. */
  begin() {
    const ranks = page.members.map(() => 0)
    const places = page.members.map((_, k) => page.exact.coefficients.findIndex((row) => row[k] === 1))
    for (const { exact_losses: losses } of this.surfaces) {
      d3.range(ranks.length).sort((a, b) => losses[places[a]] - losses[places[b]]).forEach((k, rank) => { ranks[k] += rank })
    }
    this.choose(d3.range(ranks.length).sort((a, b) => ranks[a] - ranks[b]).slice(0, 3))
  }

  /** Coefficients of some members as coefficients of all. */
  spread(weights, picks = this.state.picks) {
    const point = page.members.map(() => 0)
    picks.forEach((k, number) => { point[k] = weights[number] })
    return point
  }

  /** The letter of a picked member, which names it in the figures; empty for another. */
  letter(member) {
    const number = this.state.picks.indexOf(member)
    return number < 0 ? '' : number < 26 ? String.fromCharCode(65 + number) : String(number + 1)
  }

  pick(member) {
    const { picks } = this.state
    this.choose(picks.includes(member) ? picks.filter((own) => own !== member) : [...picks, member])
  }

  choose(picks, point = null) {
    this.state.picks = [...picks].sort((a, b) => a - b)
    this.sliders = null
    this.go(point || (picks.length ? this.spread(this.state.picks.map(() => 1 / picks.length)) : this.centroid))
  }

  go(point) {
    this.state.point = point
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = null
      this.update()
    })
  }

  update() {
    const { state } = this
    state.near = nearest(state.point)
    state.told = recipe(page, state.point)
    const seen = this.surfaces.map((surface) => look(page, surface, state.point))
    state.known = seen.every((own) => own.known)
    this.map.update(state)
    this.cards.forEach((card, number) => card.update(state, seen[number]))
    this.trades.forEach(({ pair, figure }) => figure.update(state, pair.map((number) => seen[number])))
    at('now').replaceChildren(...seen.map((own, number) => chip(this.surfaces[number], own)))
    for (const name of at('members').children) {
      name.setAttribute('aria-pressed', state.picks.includes(Number(name.dataset.member)))
      name.querySelector('b').textContent = this.letter(Number(name.dataset.member))
    }
    this.showSliders()
    at('command').replaceChildren(...words(command(state.point)))
    at('near').replaceChildren(...state.near.map((own) => this.nearRow(own)))
    document.querySelectorAll('[name=quantity]').forEach((own) => { own.checked = own.value === state.quantity })
    at('hint').textContent = HINTS[Math.min(state.picks.length, 4)]
    clearTimeout(this.writing)
    this.writing = setTimeout(() => this.write(), 150)
  }

  /** A card with two datasets against each other. */
  trade(pair) {
    const surfaces = pair.map((number) => this.surfaces[number])
    const names = surfaces.map((surface) => surface.name)
    const svg = svgOf('trade', `${names[0]} against ${names[1]}`)
    at('cards').append(element('article', { class: 'card', 'aria-label': 'Trade-off' }, element('h3', {}, `${names[0]} against ${names[1]}`),
      element('p', { class: 'says' }, 'Each mark is a model; the bars are the bounds of the point. Press a mark to go there.'), svg))
    return new Tradeoff(svg, page, surfaces, this)
  }

  /** A slider for each picked member and each other one with a coefficient. */
  showSliders() {
    const { state } = this
    const wanted = page.members.map((_, k) => k).filter((k) => state.picks.includes(k) || state.point[k] !== 0)
    if (`${this.sliders}` !== `${wanted}` || !at('sliders').children.length) {
      this.sliders = wanted
      at('sliders').replaceChildren(...wanted.map((k) => this.slider(k)))
    }
    for (const row of at('sliders').children) {
      const own = state.point[Number(row.dataset.member)]
      const [range, number] = row.querySelectorAll('input')
      range.min = state.held ? 0 : -1
      range.max = state.held ? 1 : 2
      range.value = own
      range.style.setProperty('--part', (own - range.min) / (range.max - range.min))
      if (document.activeElement !== number) number.value = +own.toFixed(3)
    }
    const sum = d3.sum(state.point)
    at('sum').textContent = state.held && Math.abs(sum - 1) < 1e-6 ? '' : `The sum is ${+sum.toFixed(3)}.${inHull(state.point) ? '' : ' Outside the hull nothing is known except at scored points.'}`
  }

  slider(k) {
    const member = page.members[k]
    const row = element('li', { 'data-member': k })
    const name = element('label', { for: `slider-${k}`, 'data-tip': `${member.name}\n${member.dataset}` }, mark(member), element('b', {}, this.letter(k)), shorten(member.name, 30))
    const range = element('input', { type: 'range', id: `slider-${k}`, step: 0.001 })
    const number = element('input', { type: 'number', step: 0.01, 'aria-label': `coefficient of ${member.name}` })
    range.style.setProperty('--own', colourOf(member))
    range.addEventListener('input', () => this.slide(k, Number(range.value)))
    number.addEventListener('change', () => { if (number.value !== '') this.slide(k, Number(number.value)) })
    row.append(name, range, number)
    return row
  }

  /** Moves one coefficient; while the sum is held at 1, the others share what is left in their proportions. */
  slide(k, value) {
    const { state } = this
    const point = [...state.point]
    point[k] = value
    if (state.held) {
      point[k] = Math.min(Math.max(value, 0), 1)
      const others = this.sliders.filter((other) => other !== k)
      const sum = d3.sum(others, (other) => Math.max(state.point[other], 0))
      if (!others.length) return this.update()
      for (const other of others) point[other] = (1 - point[k]) * (sum > 0 ? Math.max(state.point[other], 0) / sum : 1 / others.length)
      const weights = tidy(this.sliders.map((other) => point[other]), 1)
      return this.go(this.spread(weights, this.sliders))
    }
    this.go(point)
  }

  controls() {
    document.querySelectorAll('[name=quantity]').forEach((own) => own.addEventListener('change', () => { this.state.quantity = own.value; this.update() }))
    at('held').addEventListener('change', (event) => {
      this.state.held = event.target.checked
      const { point, picks } = this.state
      if (this.state.held && !inHull(point)) {
        const kept = point.map((own) => Math.max(own, 0))
        const sum = d3.sum(kept)
        this.go(sum > 0 ? kept.map((own) => own / sum) : this.spread(picks.map(() => 1 / picks.length)))
      } else this.update()
    })
    at('middle').addEventListener('click', () => this.choose(this.state.picks))
    at('clear').addEventListener('click', () => this.choose([]))
    at('copy').addEventListener('click', () => copy(command(this.state.point), at('copy')))
    at('link').addEventListener('click', () => { this.write(); copy(location.href, at('link')) })
    addEventListener('hashchange', () => { if (location.hash !== this.written) this.read() })
    const dark = matchMedia('(prefers-color-scheme: dark)')
    const themed = () => { this.state.theme = dark.matches ? 'dark' : 'light' }
    dark.addEventListener('change', () => { themed(); this.update() })
    themed()
    tips()
  }

  /** The members by name, for keyboards, for readers of names, and as the legend of the map. */
  names() {
    at('members').replaceChildren(...page.members.map((member, k) => {
      const own = element('button', { type: 'button', class: 'name', 'data-member': k, 'data-tip': `${member.name}\n${member.dataset}` }, mark(member), element('b'), shorten(member.name, 26))
      own.addEventListener('click', () => this.pick(k))
      return own
    }))
    at('by-name').open = page.members.length <= 8 && innerWidth > 900
    const kinds = [...new Map(page.members.map((member) => [member.dataset, member])).values()]
    at('legend').replaceChildren(...kinds.map((member) => element('span', {}, mark(member), member.dataset)))
  }

  nearRow({ point, at: number, distance, kind }) {
    const go = element('button', { type: 'button' }, recipe(page, point, 4, (name, k) => this.letter(k) || shorten(name)))
    go.addEventListener('click', () => this.go(point))
    const losses = this.surfaces.map((surface) => element('td', { class: 'number' }, told(surface[this.state.quantity === 'loss' ? 'exact_losses' : 'exact_scores'][number])))
    return element('tr', {}, element('td', {}, go, element('small', {}, kind)), element('td', { class: 'number' }, (distance / page.radius).toFixed(2)), ...losses)
  }

  /** The link that reopens this page at this point. */
  write() {
    const names = (list) => list.map((k) => encodeURIComponent(page.members[k].name)).join(',')
    const used = page.members.map((_, k) => k).filter((k) => this.state.point[k] !== 0)
    const point = used.map((k) => `${encodeURIComponent(page.members[k].name)}:${+this.state.point[k].toFixed(COMMANDS_DIGITS)}`).join(',')
    this.written = `#pick=${names(this.state.picks)}&at=${point || 'base'}${this.state.quantity === 'loss' ? '' : '&show=score'}`
    try {
      history.replaceState(null, '', this.written)
    } catch {
      location.hash = this.written // a browser that forbids it for files
    }
  }

  /** Reads the link; false if there is none, or it names members that are not here. */
  read() {
    const parts = new Map(location.hash.slice(1).split('&').map((part) => part.split('=')))
    if (!parts.has('at')) return false
    const number = (name) => page.members.findIndex((member) => member.name === decodeURIComponent(name))
    const picks = (parts.get('pick') || '').split(',').filter(Boolean).map(number)
    let point = page.members.map(() => 0)
    if (parts.get('at') !== 'base') {
      for (const part of parts.get('at').split(',')) {
        const [name, own] = part.split(':')
        if (number(name) < 0 || !Number.isFinite(Number(own))) return false
        point[number(name)] = Number(own)
      }
    }
    if (picks.includes(-1)) return false
    // Numbers are rounded in a link.
    const sum = d3.sum(point)
    if (Math.abs(sum - 1) < 1e-4 && point.every((own) => own >= 0)) point = point.map((own) => own / sum)
    this.state.held = inHull(point)
    at('held').checked = this.state.held
    this.state.quantity = parts.get('show') === 'score' ? 'score' : 'loss'
    this.choose(picks, point)
    return true
  }
}

const HINTS = [
  'Pick two members for the line between them, three or more for their hull.',
  'Pick one more member for a line, or two for a triangle.',
  'Drag the point along the line, or pick a third member.',
  'Drag the point through the hull, on the map or in any figure.',
  'A figure shows one mixture at each place; the sliders reach the others.',
]

/** One dataset: its numbers at the point, a strip of all models, and what lies between the picked members. */
class Card {
  constructor(surface, number, app) {
    Object.assign(this, { surface })
    this.metric = surface.metric.replace('_', ' ')
    this.loss = element('b')
    this.score = element('b')
    this.lossBound = element('span', { class: 'bound' })
    this.scoreBound = element('span', { class: 'bound' })
    this.says = element('p', { class: 'says' })
    const strip = svgOf('strip', `${surface.name}: members, centroid, base and the point`)
    const between = svgOf('between', `${surface.name}: between the picked members`)
    this.strip = new Strip(strip, page, surface)
    this.between = new Between(between, page, surface, app, `slice-${number}`)
    this.root = element('article', { class: 'card', 'aria-labelledby': `card-${number}` },
      element('h3', { id: `card-${number}` }, surface.name),
      element('div', { class: 'numbers' },
        element('div', { 'data-quantity': 'loss' }, this.loss, this.lossBound, element('span', { class: 'label' }, surface.label)),
        element('div', { 'data-quantity': 'score' }, this.score, this.scoreBound, element('span', { class: 'label' }, this.metric))),
      this.says, strip, between)
    at('cards').append(this.root)
    const members = page.exact.kinds.map((kind, own) => [kind, own]).filter(([kind]) => kind === 'member').map(([, own]) => own)
    this.best = d3.least(members, (own) => surface.exact_losses[own])
    this.range = d3.max(surface.exact_losses) - d3.min(surface.exact_losses)
  }

  update(state, seen) {
    const bound = (own, digits) => (seen.exact ? 'exact' : `± ${own.toFixed(digits)}`)
    this.root.classList.toggle('lost', !seen.known)
    this.root.dataset.quantity = state.quantity
    this.loss.textContent = seen.known ? seen.loss.toFixed(4) : '–'
    this.score.textContent = seen.known ? seen.score.toFixed(3) : '–'
    this.lossBound.textContent = seen.known ? bound(seen.bounds.loss, 4) : ''
    this.scoreBound.textContent = seen.known ? bound(seen.bounds.score, 3) : ''
    this.says.textContent = this.told(seen, state)
    this.strip.update(state, seen)
    this.between.update(state)
  }

  /** The finding in words: better or worse than the best member, or why nothing can be said. */
  told(seen, state) {
    const nearest = state.near[0]
    if (!seen.known) return `Nothing is known here: the point is ${seen.why}. The nearest scored point, ${recipe(page, nearest.point)}, has a loss of ${told(this.surface.exact_losses[nearest.at])}.`
    const name = recipe(page, page.exact.coefficients[this.best])
    const best = this.surface.exact_losses[this.best]
    const gap = best - seen.loss
    if (!seen.exact && seen.bounds.loss > this.range / 4) return `The bound is wide here: trust the scored points. The nearest, ${recipe(page, nearest.point)}, has a loss of ${told(this.surface.exact_losses[nearest.at])}.`
    if (Math.abs(gap) < 5e-5) return `The best member, ${name}.`
    if (Math.abs(gap) <= seen.bounds.loss) return `As good as the best member, ${name} (${told(best)}), within the bound.`
    return `${told(Math.abs(gap))} ${gap > 0 ? 'below' : 'above'} the best member, ${name} (${told(best)}).`
  }
}

/** The three scored points nearest in weight space; the distance follows from the inner products of task vectors. */
function nearest(point) {
  return page.exact.coefficients.map((row, number) => {
    const step = row.map((own, k) => own - point[k])
    const square = d3.sum(step, (own, k) => (own === 0 ? 0 : own * dot(page.gram[k], step)))
    return { point: row, at: number, kind: page.exact.kinds[number], distance: Math.sqrt(Math.max(square, 0)) }
  }).sort((a, b) => a.distance - b.distance).filter((own, number, all) => !number || own.point.some((c, k) => Math.abs(c - all[number - 1].point[k]) > 1e-9)).slice(0, 3)
}

/** The command that writes the model of a point. */
function command(point) {
  const used = page.members.map((_, k) => k).filter((k) => point[k] !== 0)
  const store = quoted(page.store)
  if (!used.length) return `wsr export base --store=${store} --to=base`
  const numbers = used.map((k) => +point[k].toFixed(COMMANDS_DIGITS))
  const how = inHull(point) ? 'weighted' : 'task_arithmetic --scale=1'
  return `wsr merge --store=${store} --method=${how} --members=${quoted(used.map((k) => page.members[k].name).join(','))} --weights=${numbers} --to=merged`
}

/** A line breaks between words only, never within a flag. */
function words(text) {
  return text.split(' ').flatMap((word, number) => [...(number ? [' '] : []), element('span', { class: 'word' }, word)])
}

/** A word for the shell. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replace(/'/g, `'"'"'`)}'`
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    const area = element('textarea', { class: 'hidden' })
    area.value = text
    document.body.append(area)
    area.select()
    document.execCommand('copy')
    area.remove()
  }
  const label = button.dataset.label || (button.dataset.label = button.textContent)
  button.textContent = 'Copied'
  at('said').textContent = 'Copied'
  setTimeout(() => { button.textContent = label; at('said').textContent = '' }, 1500)
}

function chip(surface, seen) {
  return element('span', { class: seen.known ? '' : 'lost' }, element('i', {}, surface.name), element('b', {}, seen.known ? seen.loss.toFixed(4) : '–'), seen.known ? (seen.exact ? ' exact' : ` ± ${seen.bounds.loss.toFixed(4)}`) : '')
}

function svgOf(name, label) {
  const own = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  own.setAttribute('class', name)
  own.setAttribute('role', 'group')
  own.setAttribute('aria-label', label)
  return own
}

function mark(member) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('viewBox', '-8 -8 16 16')
  svg.setAttribute('class', 'mark')
  svg.setAttribute('aria-hidden', 'true')
  d3.select(svg).append('path').attr('d', symbolOf(member)).attr('fill', colourOf(member))
  return svg
}

/** An HTML element; texts are set as text, never as HTML. */
function element(name, attributes = {}, ...children) {
  const own = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) own.setAttribute(key, value)
  own.append(...children)
  return own
}

/** Shows the text of data-tip beside the mouse, or beside the mark that has the focus. */
function tips() {
  const tip = at('tip')
  const show = (target, x, y) => {
    const own = target.closest && target.closest('[data-tip]')
    tip.hidden = !own
    if (!own) return
    tip.textContent = own.getAttribute('data-tip')
    tip.style.left = `${Math.max(8, Math.min(x + 14, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`
    tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 12 : y + 18}px`
  }
  addEventListener('pointermove', (event) => show(event.target, event.clientX, event.clientY))
  addEventListener('pointerdown', (event) => show(event.target, event.clientX, event.clientY))
  addEventListener('focusin', (event) => {
    const box = event.target.getBoundingClientRect()
    if (event.target.matches(':focus-visible')) show(event.target, box.right, box.bottom)
  })
  addEventListener('keydown', (event) => { if (event.key === 'Escape') tip.hidden = true })
  addEventListener('scroll', () => { tip.hidden = true }, { passive: true })
}

globalThis.explorer = new App()
