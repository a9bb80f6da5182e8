// Between the plane and the coefficients: a place among the corners of a figure is a point of their hull.

/** The place of a point among corners: their mean, weighted by the coefficients. */
function placeOf(weights, corners) {
  const total = weights.reduce((sum, own) => sum + own, 0) || 1
  return [0, 1].map((axis) => corners.reduce((sum, corner, k) => sum + weights[k] * corner[axis], 0) / total)
}

/**
 * The weights of the corners whose weighted mean is a place: those of largest entropy (Sukumar, Construction of
 * polygonal interpolants, 2004). They are non-negative, sum to 1, and are unique on a line and in a triangle. A place
 * outside is moved to the nearest one inside.
 */
function weightsAt(place, corners) {
  if (corners.length === 1) return [1]
  const scale = Math.max(...corners.map((corner) => Math.hypot(corner[0] - corners[0][0], corner[1] - corners[0][1]))) || 1
  const middle = placeOf(corners.map(() => 1), corners)
  const inside = nearestInside(place, corners)
  // Weights of zero are reached in the limit only, so the place is kept off the edge by less than is rounded away.
  const aim = inside.map((own, axis) => own + 1e-3 * (middle[axis] - own))
  const moved = corners.map((corner) => corner.map((own, axis) => (own - aim[axis]) / scale))
  let tilt = [0, 0]
  let best = balance(moved, tilt)
  for (let step = 0; step < 60; step++) {
    const { weights, mean: [gx, gy] } = best
    if (Math.hypot(gx, gy) < 1e-9) break
    let [xx, xy, yy] = [1e-9, 0, 1e-9]
    weights.forEach((own, k) => {
      const [x, y] = [moved[k][0] - gx, moved[k][1] - gy]
      xx += own * x * x
      xy += own * x * y
      yy += own * y * y
    })
    const determinant = xx * yy - xy * xy
    const direction = [(yy * gx - xy * gy) / determinant, (xx * gy - xy * gx) / determinant]
    let length = 1
    let next
    do {
      next = tilt.map((own, axis) => own - length * direction[axis])
      length /= 2
    } while (balance(moved, next).height > best.height + 1e-15 && length > 1e-6)
    tilt = next
    best = balance(moved, tilt)
  }
  return best.weights
}

/** Weights in proportion to exp(tilt . corner), their weighted mean, and the logarithm of their sum. */
function balance(corners, tilt) {
  const heights = corners.map((corner) => corner[0] * tilt[0] + corner[1] * tilt[1])
  const top = Math.max(...heights)
  const raw = heights.map((own) => Math.exp(own - top))
  const total = raw.reduce((sum, own) => sum + own, 0)
  const weights = raw.map((own) => own / total)
  const mean = [0, 1].map((axis) => corners.reduce((sum, corner, k) => sum + weights[k] * corner[axis], 0))
  return { weights, mean, height: top + Math.log(total) }
}

/** The nearest place of the convex hull of some corners. */
function nearestInside(place, corners) {
  const outline = outlineOf(corners)
  if (outline.length > 2 && d3.polygonContains(outline, place)) return place
  let [best, nearest] = [outline[0], Infinity]
  outline.forEach((from, number) => {
    const to = outline[(number + 1) % outline.length]
    const along = [to[0] - from[0], to[1] - from[1]]
    const length = along[0] ** 2 + along[1] ** 2
    const share = length && ((place[0] - from[0]) * along[0] + (place[1] - from[1]) * along[1]) / length
    const found = from.map((own, axis) => own + Math.min(Math.max(share, 0), 1) * along[axis])
    const distance = Math.hypot(found[0] - place[0], found[1] - place[1])
    if (distance < nearest) [best, nearest] = [found, distance]
  })
  return best
}

/** The outline of some corners: a polygon, or the two ends of a line. */
function outlineOf(corners) {
  if (corners.length < 3) return corners
  return d3.polygonHull(corners) || d3.extent(corners.map((corner) => corner[0])).map((x) => corners.find((corner) => corner[0] === x))
}

/** Weights in whole thousandths that sum to 1, so that a command and a link name a point in few digits. */
function tidy(weights, least = 2) {
  const parts = weights.map((own) => Math.round(own * 1000)).map((own) => (own < least ? 0 : own))
  parts[parts.indexOf(Math.max(...parts))] += 1000 - parts.reduce((sum, own) => sum + own, 0)
  return parts.map((own) => own / 1000)
}

/** Places of corners on a circle: a triangle stands on its base, a line lies. */
function regularCorners(count, centre, radius) {
  if (count === 2) return [[centre[0] - radius, centre[1]], [centre[0] + radius, centre[1]]]
  return d3.range(count).map((k) => {
    const angle = (2 * Math.PI * k) / count - Math.PI / 2
    return [centre[0] + radius * Math.cos(angle), centre[1] + radius * Math.sin(angle)]
  })
}
