"""Batches and parameters for the tests of the models, independent of the package's own packing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsr import models

Text = tuple[list[int], list[int]]
"""Token ids and token types of one text."""


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
