"""Weight matching: the order of a model's units in which its weights come closest to those of another.

Source: Ainsworth et al. 2022, Git Re-Basin, arXiv 2209.04836, section 3.2: ``max sum_l <A_l, P(B)_l>`` by coordinate
ascent, one linear assignment at a time. Here the units are those of ``wsr.models.permutations``: heads are assigned
with the features within each of them, and the residual stream starts from the leaves that carry nothing else.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float64, Int

from wsr.models.permutations import AttentionUnits, Axis, FeedForwardUnits, Permutable

Leaves = dict[str, np.ndarray]
"""The leaves of a model by path, float32."""
Order = Int[np.ndarray, " _"]
"""For each unit of the first model, the unit of the second that is matched to it."""
Sweep = dict[Axis, Order]
"""For stretches of axes, the index within the stretch that each entry comes from."""
Group = Callable[[Leaves, Leaves], Sweep]
"""Returns the best order of some units of the second model, given all others."""
MOST_SWEEPS = 20


def assigned(similarity: Float64[np.ndarray, "units units"]) -> Order:
    """Returns the assignment of the largest total similarity (the Hungarian method, by SciPy).

    Args:
      similarity: of each unit of the first model with each of the second.
    """
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(similarity, maximize=True)[1]


def rows_of(leaves: Leaves, axis: Axis, size: int) -> Float64[np.ndarray, "units entries"]:
    """Returns the weights of each unit on one stretch of an axis.

    Args:
      leaves: the model.
      axis: the stretch.
      size: number of units.
    """
    leaf = np.moveaxis(leaves[axis.path], axis.axis, 0)[axis.start : axis.start + size]
    return leaf.reshape(size, -1).astype(np.float64)


def products(first: Leaves, second: Leaves, axes: Iterable[Axis], size: int) -> Float64[np.ndarray, "units units"]:
    """Returns the inner products of the units of two models over stretches of axes.

    Args:
      first: a model.
      second: another of the same shapes.
      axes: the stretches.
      size: number of units.
    """
    total = np.zeros((size, size))
    for axis in axes:
        total += rows_of(first, axis, size) @ rows_of(second, axis, size).T
    return total


def moved(leaves: Leaves, sweep: Sweep) -> Leaves:
    """Returns a model with entries of some axes in another order.

    Args:
      leaves: the model; it is not changed.
      sweep: the order of each stretch.
    """
    found = dict(leaves)
    for axis, order in sweep.items():
        leaf = found[axis.path]
        index = np.arange(leaf.shape[axis.axis])
        index[axis.start : axis.start + len(order)] = axis.start + order
        found[axis.path] = np.take(leaf, index, axis=axis.axis)
    return found


def stream_order(first: Leaves, second: Leaves, units: Permutable) -> Sweep:
    """Returns the order of the second model's residual stream by the leaves on which no other units lie.

    Args:
      first: a model.
      second: another of the same shapes.
      units: what may change places.
    """
    return _stream(units, alone=True)(first, second)


def aligned(reference: Leaves, model: Leaves, units: Permutable, *, stream: bool) -> tuple[Leaves, list[Sweep]]:
    """Returns a model with its units in the order that brings its weights closest to the reference's.

    Args:
      reference: the model whose order is taken.
      model: another of the same shapes.
      units: what may change places.
      stream: whether the residual stream may, too.

    Returns:
      The model, and the steps that lead to it, in order; none if it is in the closest order found already.
    """
    found, steps = model, []

    def step(group: Group) -> bool:
        nonlocal found
        sweep = group(reference, found)
        if all((order == np.arange(len(order))).all() for order in sweep.values()):
            return False
        found = moved(found, sweep)
        steps.append(sweep)
        return True

    groups = _groups(units)
    if stream and units.stream:
        step(_stream(units, alone=True))
        groups.append(_stream(units))
    for _ in range(MOST_SWEEPS):
        changed = [step(group) for group in groups]
        if not any(changed):
            break
    return found, steps


def _groups(units: Permutable) -> list[Group]:
    feed_forwards = [_of_feed_forward(own) for own in units.feed_forwards]
    if units.head_tables:
        return [*feed_forwards, _of_heads(units.attentions, units.head_tables)]
    return [*feed_forwards, *(_of_heads([own], ()) for own in units.attentions)]


def _of_feed_forward(units: FeedForwardUnits) -> Group:
    axes = (*units.into, *units.out)

    def best(first: Leaves, second: Leaves) -> Sweep:
        return dict.fromkeys(axes, assigned(products(first, second, axes, units.size)))

    return best


def _stream(units: Permutable, *, alone: bool = False) -> Group:
    """The residual stream; with ``alone``, judged by leaves on which no other units lie."""
    judged = units.stream_alone if alone else units.stream

    def best(first: Leaves, second: Leaves) -> Sweep:
        return dict.fromkeys(units.stream, assigned(products(first, second, judged, units.hidden)))

    return best


def _of_heads(layers: Sequence[AttentionUnits], tables: Sequence[Axis]) -> Group:
    """The heads of one layer, or of all layers together if they share a table."""

    def best(first: Leaves, second: Leaves) -> Sweep:
        within = [_within_heads(first, second, own) for own in layers]
        total = products(first, second, tables, layers[0].key_heads)
        for similarity, _ in within:
            total += similarity
        order = assigned(total)
        sweep: Sweep = dict.fromkeys(tables, order)
        for _, orders_of in within:
            sweep |= orders_of(order)
        return sweep

    return best


def _within_heads(
    first: Leaves, second: Leaves, units: AttentionUnits
) -> tuple[Float64[np.ndarray, "heads heads"], Callable[[Order], Sweep]]:
    """Returns the similarity of each pair of key heads, with the best orders within them, and those orders."""
    heads, width, each = units.key_heads, units.width, units.heads // units.key_heads
    narrow, wide = heads * width, units.heads * width
    queries = products(first, second, units.query, wide).reshape(heads, each, width, heads, each, width)
    keys = products(first, second, units.key, narrow).reshape(heads, width, heads, width)
    values = products(first, second, units.value, narrow).reshape(heads, width, heads, width)
    outputs = products(first, second, units.output, wide).reshape(heads, each, width, heads, each, width)
    total = np.zeros((heads, heads))
    within: dict[tuple[int, int], tuple[Order, Order, Order]] = {}
    plain = np.arange(width)
    for a in range(heads):
        for b in range(heads):
            # Query heads that share a key head; their features stay in order if there are several.
            shared = assigned(np.einsum("ifjf->ij", queries[a, :, :, b])) if each > 1 else np.zeros(1, np.intp)
            chosen = list(enumerate(shared))
            of_keys = sum((queries[a, i, :, b, j] for i, j in chosen), keys[a, :, b])
            of_values = sum((outputs[a, i, :, b, j] for i, j in chosen), values[a, :, b])
            key_order = assigned(of_keys) if units.free else plain
            value_order = assigned(of_values)
            total[a, b] = of_keys[plain, key_order].sum() + of_values[plain, value_order].sum()
            within[a, b] = shared, key_order, value_order

    def orders_of(order: Order) -> Sweep:
        query, key, value, output = [], [], [], []
        for a, b in enumerate(order):
            shared, key_order, value_order = within[a, b]
            key.append(b * width + key_order)
            value.append(b * width + value_order)
            for j in shared:
                query.append((b * each + j) * width + key_order)
                output.append((b * each + j) * width + value_order)
        parts = ((units.query, query), (units.key, key), (units.value, value), (units.output, output))
        return {axis: np.concatenate(own) for axes, own in parts for axis in axes}

    return total, orders_of
