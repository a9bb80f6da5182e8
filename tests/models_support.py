"""Batches and parameters for the tests of the models, independent of the package's own packing."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsr import models

Text = tuple[list[int], list[int]]
"""Token ids and token types of one text."""


@dataclass(frozen=True)
class Inputs:
    """Four texts or images, as a model reads them, and what the common suite makes of them; all of one shape."""

    alone: dict[str, jax.Array]
    together: dict[str, jax.Array]
    """Packed, where the model packs."""
    first_changed: dict[str, jax.Array]
    """As ``together``, with another first text or image."""
    two_absent: dict[str, jax.Array]
    all_absent: dict[str, jax.Array]


def inputs_for(model: models.Model) -> Inputs:
    """Returns inputs of the kind that ``model`` reads; their sizes are those of its config."""
    return _images(model) if model.reads == "images" else _texts(model)


def _texts(model: models.Model) -> Inputs:
    texts = random_texts(0, LENGTHS, model.config["vocab_size"])
    changed = [(texts[0][0][::-1], texts[0][1]), *texts[1:]]
    # As many rows as one text a row, so that one program serves all.
    rows = PACKED if model.packed else [[0], [1], [2], [3]]
    return Inputs(
        one_a_row(texts, LENGTH),
        in_rows(texts, rows, LENGTH),
        in_rows(changed, rows, LENGTH),
        in_rows(texts[:2], [[0], [1], [], []], LENGTH, slots=4),
        in_rows([], [[]] * 4, LENGTH, slots=4),
    )


def _images(model: models.Model) -> Inputs:
    side, channels = model.config["image_size"], model.config["num_channels"]
    images = np.random.default_rng(0).standard_normal((4, side, side, channels)).astype(np.float32)
    some = [images, images, images.copy(), images.copy(), np.zeros_like(images)]
    some[2][0] = images[0, ::-1]
    some[3][2:] = 0
    return Inputs(*({"pixel_values": jnp.asarray(one)} for one in some))


LENGTHS = [5, 9, 3, 7]
LENGTH = 11
PACKED = [[0, 2], [1], [3], []]


def random_texts(seed: int, lengths: list[int], vocabulary: int, *, pairs: bool = False) -> list[Text]:
    """Texts of the given lengths; with ``pairs`` the second half of each has token type 1."""
    random = np.random.default_rng(seed)
    return [
        (random.integers(5, vocabulary, n).tolist(), [int(pairs and place >= n // 2) for place in range(n)])
        for n in lengths
    ]


def one_a_row(texts: list[Text], length: int) -> dict[str, jax.Array]:
    """A padded batch: text i in row i."""
    return in_rows(texts, [[index] for index in range(len(texts))], length)


def in_rows(texts: list[Text], rows: list[list[int]], length: int, *, slots: int = 0) -> dict[str, jax.Array]:
    """A packed batch: row r holds the texts ``rows[r]``; ``slots`` beyond the texts stay absent."""
    shape = (len(rows), length)
    batch = {name: np.zeros(shape, np.int32) for name in ("token_ids", "token_types", "positions")}
    batch["text_ids"] = np.full(shape, -1, np.int32)
    batch["starts"] = np.zeros(max(len(texts), slots), np.int32)
    for row, members in enumerate(rows):
        place = 0
        for text in members:
            token_ids, token_types = texts[text]
            where = slice(place, place + len(token_ids))
            assert where.stop <= length
            batch["token_ids"][row, where] = token_ids
            batch["token_types"][row, where] = token_types
            batch["positions"][row, where] = np.arange(len(token_ids))
            batch["text_ids"][row, where] = text
            batch["starts"][text] = row * length + place
            place = where.stop
    return jax.tree.map(jnp.asarray, batch)


def random_params(model: models.Model, seed: int = 0) -> dict[str, Any]:
    """Parameters of ``model`` drawn by NumPy, biases and scales too; unlike ``init`` nothing is compiled."""
    random = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + 0.2 * random.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0)))


def every_token(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The same rows with a text's start at every token: under "cls" pooling, all hidden states come out."""
    return {**batch, "starts": jnp.arange(batch["token_ids"].size, dtype=jnp.int32)}
