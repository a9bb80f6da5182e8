"""The vocabulary of the package: what flows between its rooms, and the names of the dimensions.

Dimensions, as they appear in every shape of the package:

    members     fine-tuned models of a population
    points      models in weight space, each a row of coefficients over the members
    batch       texts (or images) processed together
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
"""Encoder parameters: a plain nested dict of arrays with string keys. Never holds a head."""

AnyArray: TypeAlias = Array | np.ndarray
"""An array on a device or in host memory."""

Head: TypeAlias = Mapping[str, AnyArray]
"""A linear classifier of one dataset: ``kernel [hidden, classes]`` and ``bias [classes]``."""

Batch: TypeAlias = Mapping[str, AnyArray]
"""What an encoder reads; a dict of arrays. For text (see ``wsr.data.packing``):

    token_ids   int32 [rows, length]   0 where there is no text
    token_types int32 [rows, length]   0 for the first text of a pair, 1 for the second
    positions   int32 [rows, length]   offset of the token within its own text, from 0
    text_ids    int32 [rows, length]   which text of the batch the token belongs to; -1 where there is none
    starts      int32 [batch]          index of a text's first token in the flattened rows; 0 for absent texts

For images:

    pixel_values float32 [batch, height, width, channels]   normalised; 0 for absent images
"""

Reads: TypeAlias = Literal["text", "images"]
"""Which kind of batch an encoder reads."""

Coefficients: TypeAlias = Float[Array, "points members"]
"""Points of weight space: row p is the model ``base + sum_k coefficients[p, k] * task_vector_k``."""
