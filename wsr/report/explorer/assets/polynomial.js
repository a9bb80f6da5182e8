// The numbers of the page: polynomials in the coefficients, the remainder that scales their error, losses and scores.
'use strict'

/** Reads little-endian float32 numbers out of base64. */
function floats(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))
  return new Float32Array(bytes.buffer)
}

/** Bernstein polynomials of one degree over the members, and how far the polynomials that the nodes leave open are missed. */
class Basis {
  constructor(degree, inverse, nodes) {
    Object.assign(this, { degree, inverse, nodes, members: nodes[0].length })
    this.terms = []
    const extend = (term, first) => {
      if (term.length === degree) return this.terms.push({ term, times: multiplicity(term) })
      for (let member = first; member < this.members; member++) extend([...term, member], member)
    }
    extend([], 0)
    // With fewer nodes than terms, polynomials of this degree itself are missed; the nodes still determine those below it.
    this.missed = this.terms.length > nodes.length ? degree : degree + 1
    this.centre = nodes[0].map((_, k) => nodes.reduce((sum, node) => sum + node[k], 0) / nodes.length)
    this.radius = Math.max(...nodes.map((node) => Math.hypot(...node.map((own, k) => own - this.centre[k]))))
    this.local = nodes.map((node) => this.around(node))
    this.kernel = this.local.map((one) => this.local.map((other) => dot(one, other) ** this.missed))
  }

  around(point) {
    return point.map((own, k) => (own - this.centre[k]) / this.radius)
  }

  /** The polynomials that are not zero at a point, as [number, value]. */
  values(point) {
    const found = []
    this.terms.forEach(({ term, times }, number) => {
      let value = times
      for (const member of term) value *= point[member]
      if (value !== 0) found.push([number, value])
    })
    return found
  }

  /** The error at a point, as root mean square over random polynomials of the missed degree (the power function). */
  remainder(point) {
    const count = this.nodes.length
    const weights = new Float64Array(count)
    for (const [number, value] of this.values(point)) {
      for (let node = 0; node < count; node++) weights[node] += value * this.inverse[number * count + node]
    }
    const x = this.around(point)
    let square = dot(x, x) ** this.missed
    for (let node = 0; node < count; node++) {
      if (weights[node] === 0) continue
      square -= 2 * weights[node] * dot(x, this.local[node]) ** this.missed
      let row = 0
      for (let other = 0; other < count; other++) row += this.kernel[node][other] * weights[other]
      square += weights[node] * row
    }
    return this.radius ** this.missed * Math.sqrt(Math.max(square, 0))
  }
}

/** One dataset: loss and score at any point of the hull, with bounds on their errors. */
class Surface {
  constructor(record, basis) {
    Object.assign(this, record, { basis })
    this.terms = floats(record.terms)
    this.falls = record.metric === 'perplexity' // the lower the score, the better
    this.width = record.labels.length * this.outputs
  }

  /** The outputs of all texts at a point. */
  values(point) {
    const found = new Float64Array(this.width)
    for (const [number, value] of this.basis.values(point)) {
      const start = number * this.width
      for (let at = 0; at < this.width; at++) found[at] += value * this.terms[start + at]
    }
    return found
  }

  at(point) {
    const values = this.values(point)
    if (this.kind === 'language_model') return { loss: values[0], score: Math.exp(values[0]) }
    const predictions = new Array(this.labels.length)
    let loss = 0
    this.labels.forEach((label, text) => {
      const own = values.subarray(text * this.outputs, (text + 1) * this.outputs)
      if (this.kind === 'regression') {
        predictions[text] = own[0]
        loss += (own[0] - label) ** 2
        return
      }
      let largest = 0
      let best = 0
      own.forEach((logit, at) => { if (logit > largest) [largest, best] = [logit, at + 1] })
      let sum = Math.exp(-largest)
      for (const logit of own) sum += Math.exp(logit - largest)
      predictions[text] = best
      loss += largest + Math.log(sum) - (label === 0 ? 0 : own[label - 1])
    })
    return { loss: loss / this.labels.length, score: METRICS[this.metric](this.labels, predictions) }
  }

  bounds(remainder) {
    const at = ({ ratio, usual, furthest }) => (remainder <= furthest * (1 + 1e-6) ? ratio * Math.max(remainder, usual) : Infinity)
    return { loss: at(this.loss_bound), score: at(this.score_bound) }
  }
}

/** What is known of a point: nothing outside the hull, the exact values of a scored point, or those of the polynomials. */
function look(page, surface, point) {
  const place = page.exact.coefficients.findIndex((row) => row.every((own, k) => Math.abs(own - point[k]) < 5e-7))
  if (place >= 0) {
    return { known: true, exact: true, loss: surface.exact_losses[place], score: surface.exact_scores[place], bounds: { loss: 0, score: 0 } }
  }
  if (!inHull(point)) return { known: false, why: 'outside the hull' }
  const bounds = surface.bounds(surface.basis.remainder(point))
  if (!Number.isFinite(bounds.loss)) return { known: false, why: 'too far from the scored points' }
  return { known: true, exact: false, ...surface.at(point), bounds }
}

/** The values and bounds of the polynomials alone, also at scored points, so that a curve has no notches there. */
function between(surface, point) {
  const bounds = surface.bounds(surface.basis.remainder(point))
  return { known: Number.isFinite(bounds.loss), ...surface.at(point), bounds }
}

function inHull(point) {
  return point.every((own) => own >= 0) && Math.abs(point.reduce((sum, own) => sum + own, 0) - 1) < 1e-6
}

/** Metrics as scikit-learn and SciPy compute them, by the names of wsr.data.metrics. */
const METRICS = {
  accuracy: (labels, found) => labels.filter((label, text) => label === found[text]).length / labels.length,
  f1: (labels, found) => f1(labels, found, 1),
  macro_f1: (labels, found) => mean([...new Set([...labels, ...found])].map((own) => f1(labels, found, own))),
  macro_recall: (labels, found) => mean([...new Set(labels)].map((own) => {
    const texts = labels.map((label, text) => [label, found[text]]).filter(([label]) => label === own)
    return texts.filter(([label, guess]) => label === guess).length / texts.length
  })),
  matthews: (labels, found) => {
    const classes = [...new Set([...labels, ...found])]
    const times = (list, own) => list.filter((value) => value === own).length
    const right = labels.filter((label, text) => label === found[text]).length
    const texts = labels.length
    const sum = (of) => classes.reduce((total, own) => total + of(own), 0)
    const spread = (list) => texts ** 2 - sum((own) => times(list, own) ** 2)
    const both = Math.sqrt(spread(labels) * spread(found))
    return both === 0 ? 0 : (right * texts - sum((own) => times(labels, own) * times(found, own))) / both
  },
  pearson: correlation,
  spearman: (labels, found) => correlation(ranks(labels), ranks(found)),
}

function f1(labels, found, own) {
  const both = labels.filter((label, text) => label === own && found[text] === own).length
  const either = labels.filter((label) => label === own).length + found.filter((guess) => guess === own).length
  return either === 0 ? 0 : (2 * both) / either
}

function correlation(one, other) {
  const [a, b] = [one, other].map((list) => list.map((own) => own - mean(list)))
  const size = Math.sqrt(dot(a, a) * dot(b, b))
  return size === 0 ? 0 : dot(a, b) / size
}

function ranks(values) {
  const sorted = [...values].sort((a, b) => a - b)
  return values.map((own) => (sorted.indexOf(own) + sorted.lastIndexOf(own)) / 2)
}

function multiplicity(term) {
  const factorial = (n) => (n < 2 ? 1 : n * factorial(n - 1))
  const times = new Map()
  for (const member of term) times.set(member, (times.get(member) || 0) + 1)
  return [...times.values()].reduce((product, n) => product / factorial(n), factorial(term.length))
}

function dot(a, b) {
  let sum = 0
  for (let k = 0; k < a.length; k++) sum += a[k] * b[k]
  return sum
}

function mean(values) {
  return values.reduce((sum, own) => sum + own, 0) / values.length
}
