"""Types that many rooms share, and the names of array dimensions.

The dimensions in the shapes of arrays:

    members     fine-tuned models of a population
    points      models in weight space, each given by a row of coefficients over the members
    batch       texts or images processed together
    rows        rows of a packed batch; a row holds one or more texts
    length      tokens in a row
    texts       examples of a split
    hidden      features of an encoder
    classes     outputs of a head (1 for regression)
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Array, Float

Params: TypeAlias = Mapping[str, Any]
"""Encoder parameters: a nested dict of arrays with string keys. Heads are kept apart."""

AnyArray: TypeAlias = Array | np.ndarray
"""An array on a device or in host memory."""

Head: TypeAlias = Mapping[str, AnyArray]
"""The linear classifier of one dataset: ``kernel [hidden, classes]`` and ``bias [classes]``."""

Batch: TypeAlias = Mapping[str, AnyArray]
"""The input of an encoder: a dict of arrays. For texts (see ``wsr.data.packing``):

    token_ids   int32 [rows, length]   0 in padding
    token_types int32 [rows, length]   0 for the first text of a pair, 1 for the second
    positions   int32 [rows, length]   offset of the token within its own text, from 0
    text_ids    int32 [rows, length]   index of the token's text in the batch; -1 in padding
    starts      int32 [batch]          index of each text's first token in the flattened rows; 0 in empty slots

For images:

    pixel_values float32 [batch, height, width, channels]   normalised; 0 in empty slots
"""

Reads: TypeAlias = Literal["text", "images"]
"""The kind of batch that an encoder reads."""

Coefficients: TypeAlias = Float[Array, "points members"]
"""Points in weight space: row p is the model ``base + sum_k coefficients[p, k] * task_vector_k``."""
