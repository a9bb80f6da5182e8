// The figures: the population on its map, a strip of all models, and a line or a slice through the picked members.
'use strict'

const SYMBOLS = [d3.symbolCircle, d3.symbolTriangle, d3.symbolSquare, d3.symbolDiamond, d3.symbolWye, d3.symbolCross, d3.symbolStar]
const MAP = { width: 400, height: 320, edge: 34 }
const STRIP = { width: 360, height: 58, edge: 12, line: 24 }
const LINE = { width: 360, height: 250, left: 46, right: 14, top: 14, bottom: 34 }
const SLICE = { width: 360, height: 300, centre: [180, 158], radius: 116, step: 5 }
const TRADE = { width: 360, height: 290, left: 52, right: 16, top: 34, bottom: 44 }
const LINE_POINTS = 101
const ON_SLICE = 0.03 // difference of a coefficient up to which a point counts as one of the slice

/** A short text for a number of the page. */
function told(value) {
  if (!Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  return (size >= 100 ? value.toFixed(1) : size >= 1e-3 || size === 0 ? value.toFixed(4 - (size >= 1)) : value.toExponential(1)).replace('-', '−')
}

function shorten(name, letters = 22) {
  return name.length > letters ? `${name.slice(0, letters - 8)}…${name.slice(-7)}` : name
}

function symbolOf(member, size = 90) {
  return d3.symbol(SYMBOLS[member.shape % SYMBOLS.length], size)()
}

function colourOf(member) {
  return `var(--wsr-${(member.color % 8) + 1})`
}

/** The map: members to pick, the hull of the picked ones, centroid and base, and the point, which can be dragged. */
class PopulationMap {
  constructor(svg, page, app) {
    Object.assign(this, { page, app })
    this.svg = d3.select(svg).attr('viewBox', `0 0 ${MAP.width} ${MAP.height}`)
    const [x, y] = ['x', 'y'].map((axis) => d3.extent(page.members, (member) => member[axis]))
    const room = [MAP.width - 2 * MAP.edge, MAP.height - 2 * MAP.edge - 22]
    const scale = Math.min(room[0] / (x[1] - x[0] || 1), room[1] / (y[1] - y[0] || 1))
    this.corners = page.members.map((member) => [
      MAP.width / 2 + scale * (member.x - (x[0] + x[1]) / 2),
      MAP.edge + room[1] / 2 - scale * (member.y - (y[0] + y[1]) / 2),
    ])
    this.base = [MAP.edge - 8, MAP.height - 16]
    this.hull = this.svg.append('path').attr('class', 'hull')
    this.near = this.svg.append('g')
    const fixed = this.svg.append('g')
    this.centre = placeOf(page.members.map(() => 1), this.corners)
    this.mark(fixed, this.centre, 'centroid', 'the centroid of all members', d3.symbol(d3.symbolDiamond, 120)(), () => app.go(app.centroid))
    this.mark(fixed, this.base, 'base', 'the base, which all members were fine-tuned from', d3.symbol(d3.symbolSquare, 100)(), () => app.go(page.members.map(() => 0)))
    this.members = this.svg.append('g').selectAll('g').data(page.members).join('g')
      .attr('class', 'member').attr('transform', (_, k) => `translate(${this.corners[k]})`)
      .attr('data-tip', (member) => `${member.name}\n${member.dataset}, cluster ${member.cluster + 1}`)
    button(this.members, (member) => `${member.name}, ${member.dataset}`, (event, member) => app.pick(page.members.indexOf(member)))
    this.members.append('circle').attr('class', 'reach').attr('r', 13)
    this.members.append('circle').attr('class', 'ring').attr('r', 10)
    this.members.append('path').attr('d', (member) => symbolOf(member)).attr('fill', colourOf)
    this.names = this.svg.append('g').attr('class', 'names')
    this.handle = handleOf(this.svg, app, (place) => {
      const corners = app.state.picks.map((k) => this.corners[k])
      if (corners.length > 1) app.go(app.spread(tidy(weightsAt(place, corners))))
    }, (weights) => this.placed(weights))
  }

  mark(group, place, name, tip, shape, go) {
    const mark = group.append('g').attr('class', 'fixed').attr('transform', `translate(${place})`).attr('data-tip', tip)
    button(mark, `Go to ${tip}`, go)
    mark.append('circle').attr('class', 'reach').attr('r', 12)
    mark.append('path').attr('d', shape)
    mark.append('text').attr('x', 11).attr('y', 4).text(name)
  }

  placed(point) {
    return Math.abs(d3.sum(point)) < 1e-9 ? this.base : placeOf(point, this.corners)
  }

  update(state) {
    const corners = state.picks.map((k) => this.corners[k])
    this.hull.attr('d', corners.length > 1 ? `M${outlineOf(corners).join('L')}Z` : null)
    this.members.classed('picked', (_, k) => state.picks.includes(k)).attr('aria-pressed', (_, k) => state.picks.includes(k))
    const middle = corners.length ? placeOf(corners.map(() => 1), corners) : this.centre
    const beside = (k) => {
      const [x, y] = [0, 1].map((axis) => this.corners[k][axis] - middle[axis])
      const length = Math.hypot(x, y)
      return length < 1 ? [0, -20] : [(20 * x) / length, (20 * y) / length]
    }
    this.names.selectAll('text').data(state.picks).join('text').text((k) => this.app.letter(k))
      .attr('x', (k) => this.corners[k][0] + beside(k)[0]).attr('y', (k) => this.corners[k][1] + beside(k)[1] + 4.5)
    this.near.selectAll('circle').data(state.near).join('circle').attr('class', 'near').attr('r', 5)
      .attr('cx', ({ point }) => this.placed(point)[0]).attr('cy', ({ point }) => this.placed(point)[1])
    moveHandle(this.handle, this.placed(state.point), state)
  }
}

/** A strip: where the point stands among the members, their centroid and the base. */
class Strip {
  constructor(svg, page, surface) {
    Object.assign(this, { page, surface })
    this.svg = d3.select(svg).attr('viewBox', `0 0 ${STRIP.width} ${STRIP.height}`)
    this.axis = this.svg.append('g').attr('class', 'axis').attr('transform', `translate(0,${STRIP.line + 9})`)
    this.svg.append('line').attr('class', 'rail').attr('x1', STRIP.edge).attr('x2', STRIP.width - STRIP.edge).attr('y1', STRIP.line).attr('y2', STRIP.line)
    this.marks = this.svg.append('g')
    this.range = this.svg.append('line').attr('class', 'range').attr('y1', STRIP.line).attr('y2', STRIP.line)
    this.here = this.svg.append('circle').attr('class', 'here').attr('r', 7).attr('cy', STRIP.line)
  }

  update(state, seen) {
    const values = this.surface[state.quantity === 'loss' ? 'exact_losses' : 'exact_scores']
    const x = d3.scaleLinear(d3.extent(values), [STRIP.edge, STRIP.width - STRIP.edge]).nice(5)
    this.axis.call(d3.axisBottom(x).ticks(5).tickSize(4)).call((axis) => axis.select('.domain').remove())
    const shown = this.page.exact.kinds.map((kind, at) => ({ kind, at })).filter(({ kind }) => ['member', 'centroid', 'base'].includes(kind))
    this.marks.selectAll('path').data(shown).join('path').attr('class', ({ kind }) => (kind === 'member' ? 'dot' : 'outline'))
      .attr('transform', ({ at }) => `translate(${x(values[at])},${STRIP.line})`)
      .attr('d', ({ kind, at }) => (kind === 'member' ? symbolOf(this.member(at), 64) : d3.symbol(kind === 'base' ? d3.symbolSquare : d3.symbolDiamond, 84)()))
      .attr('fill', ({ kind, at }) => (kind === 'member' ? colourOf(this.member(at)) : null))
      .attr('data-tip', ({ kind, at }) => `${kind === 'member' ? this.member(at).name : kind}\n${told(values[at])}`)
    const value = seen.known ? seen[state.quantity] : NaN
    const bound = seen.known ? seen.bounds[state.quantity] : 0
    const clamp = (at) => Math.min(Math.max(x(at), 2), STRIP.width - 2)
    this.here.attr('visibility', seen.known ? null : 'hidden').attr('cx', seen.known ? clamp(value) : 0)
    this.range.attr('visibility', seen.known ? null : 'hidden')
      .attr('x1', seen.known ? clamp(value - bound) : 0).attr('x2', seen.known ? clamp(value + bound) : 0)
  }

  member(at) {
    return this.page.members[this.page.exact.coefficients[at].indexOf(1)]
  }
}

/** What lies between the picked members: a curve with its band on a line, contours in a hull. */
class Between {
  constructor(svg, page, surface, app, id) {
    Object.assign(this, { page, surface, app, id })
    this.svg = d3.select(svg)
    this.drawn = ''
  }

  update(state) {
    const wanted = `${state.picks} ${state.quantity} ${state.theme}`
    if (wanted !== this.drawn) this.draw(state)
    this.drawn = wanted
    if (!this.handle) return
    const inside = state.point.every((own, k) => own === 0 || state.picks.includes(k)) && inHull(state.point)
    this.handle.attr('visibility', inside ? null : 'hidden')
    if (inside) moveHandle(this.handle, this.placed(state.picks.map((k) => state.point[k])), state)
    this.handle.classed('beside', Boolean(inside && this.onSlice && !this.onSlice(state.point)))
    const nearest = state.near[0] && state.near[0].at
    this.svg.selectAll('.scored').classed('nearest', ({ at }) => at === nearest)
  }

  draw(state) {
    this.svg.selectAll('*').remove()
    this.handle = this.onSlice = null
    if (state.picks.length < 2) return this.svg.attr('viewBox', '0 0 360 0')
    // What was computed for the picked members serves loss and score.
    if (this.picks !== `${state.picks}`) {
      this.picks = `${state.picks}`
      this.cells = null
    }
    if (state.picks.length === 2) this.drawLine(state)
    else this.drawSlice(state)
  }

  /** Scored points with no other members than the picked ones. */
  scored(state) {
    const values = this.surface[state.quantity === 'loss' ? 'exact_losses' : 'exact_scores']
    return this.page.exact.coefficients.map((point, at) => ({ point, at, value: values[at] }))
      .filter(({ point }) => d3.sum(point) > 0.5 && point.every((own, k) => own === 0 || state.picks.includes(k)))
  }

  drawLine(state) {
    const { page, surface, app, svg } = this
    svg.attr('viewBox', `0 0 ${LINE.width} ${LINE.height}`)
    this.cells ||= d3.range(LINE_POINTS).map((step) => {
      const share = step / (LINE_POINTS - 1)
      return { share, ...between(surface, app.spread([1 - share, share], state.picks)) }
    })
    const cells = this.cells.map(({ share, known, bounds, ...cell }) => ({ share, known, value: cell[state.quantity], bound: bounds[state.quantity] }))
    const known = cells.filter((cell) => cell.known)
    const scored = this.scored(state)
    const low = d3.min([...known.map((cell) => cell.value - cell.bound), ...scored.map((own) => own.value)])
    const high = d3.max([...known.map((cell) => cell.value + cell.bound), ...scored.map((own) => own.value)])
    const x = d3.scaleLinear([0, 1], [LINE.left, LINE.width - LINE.right])
    const y = d3.scaleLinear([low, high], [LINE.height - LINE.bottom, LINE.top]).nice(5)
    svg.append('g').attr('class', 'axis').attr('transform', `translate(${LINE.left},0)`)
      .call(d3.axisLeft(y).ticks(5).tickSize(-(LINE.width - LINE.left - LINE.right)).tickPadding(6)).call((axis) => axis.select('.domain').remove())
    const ends = svg.append('g').attr('class', 'corners')
    state.picks.forEach((k, end) => ends.append('text').attr('x', end ? LINE.width - LINE.right : LINE.left).attr('y', LINE.height - 10)
      .attr('text-anchor', end ? 'end' : 'start').text(`${app.letter(k)} ${shorten(page.members[k].name)}`))
    const defined = (cell) => cell.known
    svg.append('path').attr('class', 'band').attr('d', d3.area().defined(defined).x((cell) => x(cell.share)).y0((cell) => y(cell.value - cell.bound)).y1((cell) => y(cell.value + cell.bound))(cells))
    svg.append('path').attr('class', 'curve').attr('d', d3.line().defined(defined).x((cell) => x(cell.share)).y((cell) => y(cell.value))(cells))
    scoredMarks(svg, scored, ({ point, value }) => [x(point[state.picks[1]]), y(value)], page, surface)
    const rule = svg.append('line').attr('class', 'rule').attr('y1', LINE.top).attr('y2', LINE.height - LINE.bottom)
    this.placed = ([, share]) => {
      const seen = look(page, surface, app.spread([1 - share, share], state.picks))
      rule.attr('x1', x(share)).attr('x2', x(share))
      return [x(share), seen.known ? y(seen[state.quantity]) : (LINE.top + LINE.height - LINE.bottom) / 2]
    }
    const go = (place) => {
      const share = Math.min(Math.max(x.invert(place[0]), 0), 1)
      app.go(app.spread(tidy([1 - share, share], 1), state.picks))
    }
    takesPoint(svg, null, go)
    this.handle = handleOf(svg, app, go, (point) => this.placed(state.picks.map((k) => point[k])))
  }

  drawSlice(state) {
    const { page, surface, app, svg } = this
    svg.attr('viewBox', `0 0 ${SLICE.width} ${SLICE.height}`)
    const corners = regularCorners(state.picks.length, state.picks.length === 3 ? [SLICE.centre[0], SLICE.centre[1] + 28] : SLICE.centre, state.picks.length === 3 ? SLICE.radius + 24 : SLICE.radius)
    const [[left, right], [top, bottom]] = [0, 1].map((axis) => d3.extent(corners, (corner) => corner[axis]))
    const step = SLICE.step * (corners.length > 6 ? 2 : 1) // more members take longer at each place
    const columns = Math.ceil((right - left) / step) + 3
    const rows = Math.ceil((bottom - top) / step) + 3
    // Cell (i, j) of d3.contours has its middle at i + 1/2, j + 1/2.
    const at = (i, j) => [left + (i - 1) * step, top + (j - 1) * step]
    this.cells ||= d3.range(rows * columns).map((number) => {
      const place = at(number % columns, Math.floor(number / columns))
      const inside = nearestInside(place, corners)
      if (Math.hypot(place[0] - inside[0], place[1] - inside[1]) > 2 * step) return null
      const point = app.spread(weightsAt(place, corners), state.picks)
      return between(surface, point)
    })
    const values = this.cells.map((cell) => (cell ? cell[state.quantity] : NaN))
    const scored = this.scored(state)
    const [low, high] = d3.extent([...values.filter(Number.isFinite), ...scored.map((own) => own.value)])
    const shade = d3.scaleLinear([low, high], state.quantity === 'loss' || surface.falls ? [1, 0] : [0, 1])
    const colours = d3.interpolateRgbBasis(['--slice-0', '--slice-1', '--slice-2', '--slice-3'].map((name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()))
    svg.append('clipPath').attr('id', this.id).append('path').attr('d', `M${corners.join('L')}Z`)
    const inner = svg.append('g').attr('clip-path', `url(#${this.id})`)
    const filled = values.map((value) => (Number.isFinite(value) ? value : high))
    const thresholds = d3.range(12).map((part) => low + ((high - low) * part) / 12)
    const path = d3.geoPath(d3.geoTransform({ point(i, j) { this.stream.point(left + (i - 1.5) * step, top + (j - 1.5) * step) } }))
    const contours = d3.contours().size([columns, rows])
    inner.append('path').attr('d', `M${corners.join('L')}Z`).attr('fill', colours(shade(low)))
    inner.selectAll('.level').data(thresholds.slice(1)).join('path').attr('class', 'level')
      .attr('d', (level) => path(contours.contour(filled, level))).attr('fill', (level) => colours(shade(level)))
    if (this.cells.some((cell) => cell && !cell.known)) {
      inner.append('path').attr('class', 'unknown').attr('d', path(contours.contour(this.cells.map((cell) => (cell && !cell.known ? 1 : 0)), 0.5)))
    }
    svg.append('path').attr('class', 'outline-of-hull').attr('d', `M${corners.join('L')}Z`)
    const labels = svg.append('g').attr('class', 'corners')
    state.picks.forEach((k, number) => {
      const [x, y] = corners[number]
      if (corners.length > 3) {
        const [dx, dy] = [x - SLICE.centre[0], y - SLICE.centre[1]].map((own) => (own * 15) / SLICE.radius)
        return labels.append('text').attr('x', x + dx).attr('y', y + dy + 4).attr('text-anchor', 'middle').text(app.letter(k))
      }
      labels.append('text').attr('x', [x, SLICE.width - 2, 2][number]).attr('y', number ? y + 20 : y - 9)
        .attr('text-anchor', ['middle', 'end', 'start'][number]).text(`${app.letter(k)} ${shorten(page.members[k].name)}`)
    })
    const place = (point) => placeOf(state.picks.map((k) => point[k]), corners)
    const onSlice = (point) => {
      const weights = weightsAt(place(point), corners)
      return state.picks.every((k, number) => Math.abs(point[k] - weights[number]) < ON_SLICE)
    }
    scoredMarks(svg, scored.filter(({ point }) => onSlice(point)), ({ point }) => place(point), page, surface)
    this.onSlice = onSlice
    legend(svg, colours, shade, [low, high], this.id)
    this.placed = (weights) => placeOf(weights, corners)
    const go = (to) => app.go(app.spread(tidy(weightsAt(to, corners)), state.picks))
    takesPoint(svg, `M${corners.join('L')}Z`, go)
    this.handle = handleOf(svg, app, go, place)
  }
}

/** Two datasets against each other: members, centroid, base, the front if there is one, and the point with its bounds. */
class Tradeoff {
  constructor(svg, page, surfaces, app) {
    Object.assign(this, { page, surfaces, app })
    this.svg = d3.select(svg).attr('viewBox', `0 0 ${TRADE.width} ${TRADE.height}`)
    this.axes = [0, 1].map(() => this.svg.append('g').attr('class', 'axis'))
    this.labels = this.svg.append('g').attr('class', 'corners')
    this.front = this.svg.append('path').attr('class', 'front')
    this.marks = this.svg.append('g')
    this.bars = [0, 1].map(() => this.svg.append('line').attr('class', 'range'))
    this.here = this.svg.append('circle').attr('class', 'here').attr('r', 7)
  }

  update(state, seen) {
    const { page, surfaces } = this
    const [one, other] = surfaces.map((surface) => surface[state.quantity === 'loss' ? 'exact_losses' : 'exact_scores'])
    const shown = page.exact.kinds.map((kind, at) => ({ kind, at, point: page.exact.coefficients[at] })).filter(({ kind }) => ['member', 'centroid', 'base', 'front'].includes(kind))
    // The base may be far away: it is drawn at the edge then.
    const near = shown.filter(({ kind }) => kind !== 'base').map(({ at }) => at)
    const spread = (values, range) => d3.scaleLinear(d3.extent(near, (at) => values[at]), range).nice(4).clamp(true)
    const x = spread(one, [TRADE.left, TRADE.width - TRADE.right])
    const y = spread(other, [TRADE.height - TRADE.bottom, TRADE.top])
    this.axes[0].attr('transform', `translate(0,${TRADE.height - TRADE.bottom + 8})`).call(d3.axisBottom(x).ticks(5).tickSize(4)).call((axis) => axis.select('.domain').remove())
    this.axes[1].attr('transform', `translate(${TRADE.left - 8},0)`).call(d3.axisLeft(y).ticks(5).tickSize(4)).call((axis) => axis.select('.domain').remove())
    this.labels.selectAll('text').data([[surfaces[0].name, TRADE.width - TRADE.right, TRADE.height - 4, 'end'], [surfaces[1].name, 4, 12, 'start']]).join('text')
      .attr('x', ([, left]) => left).attr('y', ([,, top]) => top).attr('text-anchor', ([,,, anchor]) => anchor).text(([name]) => shorten(name, 30))
    const front = shown.filter(({ kind }) => kind === 'front').sort((a, b) => one[a.at] - one[b.at])
    this.front.attr('d', front.length > 1 ? d3.line().x(({ at }) => x(one[at])).y(({ at }) => y(other[at]))(front) : null)
    const marks = this.marks.selectAll('path').data(shown).join('path').attr('class', ({ kind }) => (kind === 'member' ? 'dot go' : kind === 'front' ? 'front-point go' : 'outline go'))
      .attr('transform', ({ at }) => `translate(${x(one[at])},${y(other[at])})`)
      .attr('d', ({ kind, point }) => (kind === 'member' ? symbolOf(page.members[point.indexOf(1)], 80) : d3.symbol({ base: d3.symbolSquare, centroid: d3.symbolDiamond, front: d3.symbolCircle }[kind], kind === 'front' ? 48 : 90)()))
      .attr('fill', ({ kind, point }) => (kind === 'member' ? colourOf(page.members[point.indexOf(1)]) : null))
      .attr('data-tip', ({ kind, at, point }) => `${kind === 'front' ? `front: ${recipe(page, point)}` : kind === 'member' ? recipe(page, point) : kind}\n${surfaces[0].name} ${told(one[at])}\n${surfaces[1].name} ${told(other[at])}`)
    button(marks, ({ kind, point }) => `Go to ${kind === 'centroid' ? 'the centroid' : recipe(page, point)}`, (_, { point }) => this.app.go(point))
    const known = seen.every((own) => own.known)
    const [a, b] = seen.map((own) => own[state.quantity])
    this.here.attr('visibility', known ? null : 'hidden')
    this.bars.forEach((bar) => bar.attr('visibility', known ? null : 'hidden'))
    if (!known) return
    const [da, db] = seen.map((own) => own.bounds[state.quantity])
    this.here.attr('cx', x(a)).attr('cy', y(b))
    this.bars[0].attr('x1', x(a - da)).attr('x2', x(a + da)).attr('y1', y(b)).attr('y2', y(b))
    this.bars[1].attr('x1', x(a)).attr('x2', x(a)).attr('y1', y(b - db)).attr('y2', y(b + db))
  }
}

function scoredMarks(svg, scored, placed, page, surface) {
  svg.append('g').selectAll('circle').data(scored).join('circle').attr('class', 'scored').attr('r', 3.2)
    .attr('cx', (own) => placed(own)[0]).attr('cy', (own) => placed(own)[1])
    .attr('data-tip', ({ point, at }) => `scored exactly: ${recipe(page, point)}\nloss ${told(surface.exact_losses[at])}, ${surface.metric.replace('_', ' ')} ${told(surface.exact_scores[at])}`)
}

/** The scale of the colours, in the corner that a slice leaves free. */
function legend(svg, colours, shade, [low, high], id) {
  const [x, y, width, height] = [2, 8, 84, 8]
  const gradient = svg.append('defs').append('linearGradient').attr('id', `${id}-scale`)
  d3.range(0, 1.01, 0.125).forEach((part) => gradient.append('stop').attr('offset', part).attr('stop-color', colours(shade(low + part * (high - low)))))
  svg.append('rect').attr('x', x).attr('y', y).attr('width', width).attr('height', height).attr('rx', 2).attr('fill', `url(#${id}-scale)`)
  svg.append('g').attr('class', 'axis').selectAll('text').data([[low, 'start', x], [high, 'end', x + width]]).join('text')
    .attr('x', ([, , at]) => at).attr('y', y + height + 12).attr('text-anchor', ([, anchor]) => anchor).text(([value]) => told(value))
}

/** A point in a few words: its members with their coefficients, the largest first. */
function recipe(page, point, most = 3, called = (name) => name) {
  const parts = page.members.map(({ name }, k) => ({ name: called(name, k), own: point[k] })).filter(({ own }) => own !== 0).sort((a, b) => b.own - a.own)
  if (!parts.length) return 'the base'
  const more = parts.length > most ? ` and ${parts.length - most} more` : ''
  return parts.slice(0, most).map(({ name, own }) => (own === 1 ? name : `${+own.toFixed(3)} ${name}`)).join(' + ') + more
}

/** The mark of the point: dragged by mouse or finger, moved by arrow keys. */
function handleOf(svg, app, go, placed) {
  const handle = svg.append('g').attr('class', 'handle').attr('tabindex', 0).attr('role', 'slider').attr('aria-label', 'The point; arrow keys move it')
    .attr('aria-valuemin', 0).attr('aria-valuemax', 100)
  handle.append('circle').attr('class', 'reach').attr('r', 18)
  handle.append('circle').attr('class', 'knob').attr('r', 8)
  handle.call(d3.drag().container(svg.node()).on('drag', (event) => go([event.x, event.y])))
  handle.on('keydown', (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
    if (!step) return
    event.preventDefault()
    const size = event.shiftKey ? 16 : 4
    const [x, y] = placed(app.state.point)
    go([x + size * step[0], y + size * step[1]])
  })
  return handle
}

function moveHandle(handle, place, state) {
  handle.attr('transform', `translate(${place})`).attr('aria-valuenow', Math.round(100 * (state.point[state.picks[0] || 0] || 0))).attr('aria-valuetext', state.told)
    .classed('lost', !state.known)
}

/** The whole of a figure takes the point: a press anywhere moves it there. A finger beside `area` scrolls the page. */
function takesPoint(svg, area, go) {
  svg.append('path').attr('class', 'area').attr('d', area)
  svg.selectAll('.scored').raise()
  svg.call(d3.drag().container(svg.node()).on('start drag', (event) => go([event.x, event.y]))).style('touch-action', 'pan-y')
}

/** Makes marks work as buttons, by mouse, finger and keyboard. */
function button(marks, label, act) {
  marks.attr('role', 'button').attr('tabindex', 0).attr('aria-label', label).on('click', act).on('keydown', (event, datum) => {
    if (event.key !== 'Enter' && event.key !== ' ') return
    event.preventDefault()
    act(event, datum)
  })
}
