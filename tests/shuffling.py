"""Models whose units are in a random order: written from the definition of attention, without the matching of wsr."""

import numpy as np

from wsr.models.permutations import Permutable


def shuffled(leaves, units: Permutable, seed: int, *, stream: bool = False) -> dict[str, np.ndarray]:
    """Returns a model that computes the same, with hidden units, heads and their features in random orders."""
    random = np.random.default_rng(seed)
    found = {path: np.array(leaf) for path, leaf in leaves.items()}

    def put(axes, order):
        for axis in axes:
            leaf = np.moveaxis(found[axis.path], axis.axis, 0)
            leaf[axis.start : axis.start + len(order)] = leaf[axis.start : axis.start + len(order)][order]

    for own in units.feed_forwards:
        put((*own.into, *own.out), random.permutation(own.size))
    shared = random.permutation(units.attentions[0].heads) if units.head_tables else None
    put(units.head_tables, shared)
    for own in units.attentions:
        each = own.heads // own.key_heads
        query, key, value, output = [], [], [], []
        for head in random.permutation(own.key_heads) if shared is None else shared:
            plain = np.arange(own.width)
            of_keys, of_values = random.permutation(plain) if own.free else plain, random.permutation(plain)
            key.append(head * own.width + of_keys)
            value.append(head * own.width + of_values)
            for other in random.permutation(each):
                query.append((head * each + other) * own.width + of_keys)
                output.append((head * each + other) * own.width + of_values)
        parts = ((own.query, query), (own.key, key), (own.value, value), (own.output, output))
        for axes, order in parts:
            put(axes, np.concatenate(order))
    if stream:
        put(units.stream, random.permutation(units.hidden))
    return found
