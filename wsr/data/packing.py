"""Packs several texts into one row, so that an encoder wastes little time on padding. Images are not packed.

Packed batches hold the arrays of ``wsr.types.Batch``, stacked over steps. No text crosses the end of a row.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Array, Float32, Int32, Int64, Shaped

from wsr.data.dataset import AnySplit, Split
from wsr.errors import WsrError

Indices = Int64[np.ndarray, " texts"]


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of one split, stacked over steps, as NumPy arrays in host memory."""

    inputs: dict[str, np.ndarray]
    """The arrays of ``wsr.types.Batch``, stacked over steps.

    - Texts, int32: ``token_ids``, ``token_types``, ``positions`` and ``text_ids`` ``[steps, rows, length]``; ``starts``
      ``[steps, batch]``.
    - Images for evaluation, float32: ``pixel_values`` ``[steps, batch, height, width, channels]``.
    - Images for training, int32: ``images`` ``[steps, batch]``, their indices in the split, because every epoch repeats
      the same images.
    """
    labels: Int32[np.ndarray, "steps batch"] | Float32[np.ndarray, "steps batch"]
    """0 in padding slots."""
    index: Int32[np.ndarray, "steps batch"]
    """Index in the split of the text in each slot; -1 in padding slots."""
    tokens: int
    """Number of tokens or images, without padding."""


def training_batches(
    split: AnySplit,
    *,
    batch_size: int,
    steps: int,
    generator: np.random.Generator,
    row_length: int = 128,
    rows: int | None = None,
    packed: bool = True,
) -> Batches:
    """Returns ``steps`` batches of exactly ``batch_size`` texts, reshuffled each epoch.

    Epochs follow one another without a gap: a batch may hold the last texts of one epoch and the first of the next.

    Args:
      split: texts or images.
      batch_size: texts per step.
      steps: number of steps.
      generator: draws the order of each epoch.
      row_length: tokens per row.
      rows: rows per step; None takes the number that the fullest step needs.
      packed: whether rows hold several texts; if not, one text per row.

    Raises:
      WsrError: if ``rows`` is too small, a text is longer than ``row_length``, or there are no texts.

    Example:
      >>> import numpy as np, wsr
      >>> from wsr.data.packing import training_batches
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> texts = data.splits["finetune"]
      >>> batches = training_batches(texts, batch_size=16, steps=4, generator=np.random.default_rng(0))
      >>> batches.labels.shape, batches.inputs["token_ids"].shape[::2]
      ((4, 16), (4, 128))
    """
    plan = _training_plan(split, batch_size, steps, generator, row_length, packed)
    needed = plan.rows_needed()
    if rows is None:
        rows = needed
    elif rows < needed:
        raise WsrError(
            f"packing: the fullest of {steps} steps needs {needed} rows of {row_length} tokens, found rows={rows}"
        )
    return _fill(split, plan, steps, rows, batch_size, row_length)


def rows_needed(
    split: AnySplit,
    *,
    batch_size: int,
    steps: int,
    generator: np.random.Generator,
    row_length: int = 128,
    packed: bool = True,
) -> int:
    """Returns the rows per step that ``training_batches`` would choose, so that members can share the largest number.

    Args:
      split: texts or images.
      batch_size: texts per step.
      steps: number of steps.
      generator: draws the order of each epoch. It is advanced as by ``training_batches``; give that call a new
        generator of the same seed.
      row_length: tokens per row.
      packed: whether rows hold several texts.

    Raises:
      WsrError: if a text is longer than ``row_length``, or there are no texts.
    """
    return _training_plan(split, batch_size, steps, generator, row_length, packed).rows_needed()


def evaluation_batches(split: AnySplit, *, rows: int, row_length: int = 128, packed: bool = True) -> Batches:
    """Returns every text of a split once, packed over the whole split.

    Args:
      split: texts or images.
      rows: rows per step.
      row_length: tokens per row.
      packed: whether rows hold several texts.

    Raises:
      WsrError: if a text is longer than ``row_length``.
    """
    lengths = _checked_lengths(split, row_length)
    row, column = _pack(lengths, row_length) if packed else _one_a_row(len(split))
    step, row = _deal(row, rows)
    order = np.lexsort((column, row, step))
    texts, step, row, column = order, step[order], row[order], column[order]
    per_step = np.bincount(step, minlength=1)
    slot = np.arange(len(texts)) - np.repeat(np.cumsum(per_step) - per_step, per_step)
    steps = int(step[-1]) + 1 if len(step) else 0
    batches = _fill(split, _Plan(texts, step, row, column, slot), steps, rows, int(per_step.max()), row_length)
    return batches if isinstance(split, Split) else replace(batches, inputs=split.inputs(batches.index))


def rows_a_step(split: AnySplit, wanted: int, *, row_length: int = 128, packed: bool = True) -> int:
    """Returns a number of rows per step, near ``wanted``, that leaves few rows of the last step empty.

    It is one of three numbers, because each number of rows compiles one more program.

    Args:
      split: texts or images.
      wanted: rows per step.
      row_length: tokens per row.
      packed: whether rows hold several texts.
    """
    lengths = _checked_lengths(split, row_length)
    needed = int((_pack(lengths, row_length) if packed else _one_a_row(len(split)))[0].max(initial=0)) + 1
    sizes = (wanted, max(1, 3 * wanted // 4), -(-5 * wanted // 4))
    return min(sizes, key=lambda rows: -(-needed // rows) * rows)


def row_length_for(wanted: int, *splits: AnySplit) -> int:
    """Returns a row length that fits every text: ``wanted``, or the longest text rounded up to a multiple of 16."""
    longest = max((int(split.lengths.max()) for split in splits if len(split)), default=1)
    return max(wanted, -(-longest // 16) * 16)


def in_text_order(
    values: Shaped[Array | np.ndarray, "steps batch ..."],
    index: Int32[np.ndarray, "steps batch"],
    texts: int,
) -> Shaped[Array | np.ndarray, "{texts} ..."]:
    """Returns values of ``evaluation_batches`` in the order of the split, with one entry per text.

    Args:
      values: one entry per slot.
      index: the index of the batches.
      texts: number of texts of the split.

    Raises:
      ValueError: if ``index`` does not hold each of ``texts`` texts once.
    """
    flat = index.ravel()
    slots = np.flatnonzero(flat >= 0)
    if not np.array_equal(np.sort(flat[slots]), np.arange(texts)):
        raise ValueError(f"index must hold each of {texts} texts once; it holds {len(slots)} entries")
    slot_of_text = np.empty(texts, np.int64)
    slot_of_text[flat[slots]] = slots
    return values.reshape(-1, *values.shape[2:])[slot_of_text]


@dataclass(frozen=True)
class _Plan:
    """The place of each text: parallel arrays with one entry per placed text."""

    texts: Indices
    step: Indices
    row: Indices
    column: Indices
    slot: Indices

    def rows_needed(self) -> int:
        return int(self.row.max()) + 1


def _training_plan(
    split: AnySplit, batch_size: int, steps: int, generator: np.random.Generator, row_length: int, packed: bool
) -> _Plan:
    if not len(split) or batch_size < 1 or steps < 1:
        raise WsrError(
            f"training: expected texts, steps and a batch size; found {len(split)}, {steps} and {batch_size}"
        )
    lengths = _checked_lengths(split, row_length)
    placed = steps * batch_size
    epochs = -(-placed // len(split))
    texts = np.concatenate([generator.permutation(len(split)) for _ in range(epochs)])[:placed]
    slot = np.tile(np.arange(batch_size), steps)
    if packed:
        packs = [_pack(lengths[batch], row_length) for batch in texts.reshape(steps, batch_size)]
        row, column = (np.concatenate(parts) for parts in zip(*packs, strict=True))
    else:
        row, column = slot, np.zeros(placed, np.int64)
    return _Plan(texts, np.repeat(np.arange(steps), batch_size), row, column, slot)


def _checked_lengths(split: AnySplit, row_length: int) -> Indices:
    lengths = split.lengths
    if len(lengths) and lengths.max() > row_length:
        raise WsrError(
            f"packing: text {lengths.argmax()} has {lengths.max()} tokens, more than the row length {row_length}; "
            f"load the dataset with max_length={row_length}, or use longer rows"
        )
    if len(lengths) and lengths.min() < 1:
        raise WsrError(f"packing: text {lengths.argmin()} has no tokens")
    return lengths


def _pack(lengths: Indices, row_length: int) -> tuple[Indices, Indices]:
    """Returns each text's row and its column in the row, by best-fit decreasing.

    It uses at most about 11/9 of the smallest possible number of rows (Johnson, Near-optimal bin packing algorithms,
    1973).
    """
    row = np.empty(len(lengths), np.int64)
    column = np.empty(len(lengths), np.int64)
    rows_with_room: list[list[int]] = [[] for _ in range(row_length + 1)]
    # Bit c is set if some row has exactly c free places. The tightest fit is then the lowest bit at or above the
    # length, and no row has to be searched.
    rooms = 0
    rows = 0
    for text in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[text])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            chosen = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, chosen, rows = row_length, rows, rows + 1
        row[text], column[text] = chosen, row_length - room
        if room > length:
            rows_with_room[room - length].append(chosen)
            rooms |= 1 << (room - length)
    return row, column


def _one_a_row(texts: int) -> tuple[Indices, Indices]:
    return np.arange(texts), np.zeros(texts, np.int64)


def _deal(row: Indices, rows: int) -> tuple[Indices, Indices]:
    """Cuts packed rows into steps of ``rows``; returns each text's step and its row in the step.

    Rows with many short texts are spread evenly, because the fullest step sets the number of slots of all steps.
    """
    if rows < 1:
        raise WsrError(f"packing: expected at least one row per step, found rows={rows}")
    texts_of_row = np.bincount(row)
    steps = -(-len(texts_of_row) // rows)
    rank = np.empty(len(texts_of_row), np.int64)
    rank[np.argsort(-texts_of_row, kind="stable")] = np.arange(len(texts_of_row))
    return (rank % max(steps, 1))[row], (rank // max(steps, 1))[row]


def _fill(split: AnySplit, plan: _Plan, steps: int, rows: int, batch: int, row_length: int) -> Batches:
    def slotted(values: Shaped[np.ndarray, " texts"], padding: int, dtype: type) -> Shaped[np.ndarray, "steps batch"]:
        out: Shaped[np.ndarray, "steps batch"] = np.full((steps, batch), padding, dtype)
        out[plan.step, plan.slot] = values
        return out

    labels = slotted(split.labels[plan.texts], 0, split.labels.dtype.type)
    index = slotted(plan.texts, -1, np.int32)
    tokens = int(split.lengths[plan.texts].sum())
    if not isinstance(split, Split):
        return Batches({"images": index}, labels, index, tokens)
    starts = slotted(plan.row * row_length + plan.column, 0, np.int32)
    return Batches(_packed(split, plan, (steps, rows, row_length)) | {"starts": starts}, labels, index, tokens)


def _packed(split: Split, plan: _Plan, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    _, rows, row_length = shape
    lengths = split.lengths[plan.texts]
    ends = np.cumsum(lengths)
    first = (plan.step * rows + plan.row) * row_length + plan.column
    position = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    source = np.repeat(split.offsets[plan.texts], lengths) + position
    target = np.repeat(first, lengths) + position

    def placed(values: Shaped[np.ndarray, " tokens"], padding: int) -> Int32[np.ndarray, "steps rows length"]:
        out = np.full(shape, padding, np.int32)
        out.reshape(-1)[target] = values
        return out

    return {
        "token_ids": placed(split.token_ids[source], 0),
        "token_types": placed(split.token_types[source], 0),
        "positions": placed(position, 0),
        "text_ids": placed(np.repeat(plan.slot, lengths), -1),
    }
