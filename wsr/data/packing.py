"""Packs texts into rows, several to a row: padding is the first waste of an encoder. Images are never packed.

Packed batches have the arrays of ``wsr.types.Batch``, stacked over steps. A text never crosses a row.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Array, Float32, Int32, Int64, Shaped

from wsr.data.dataset import AnySplit, Split
from wsr.errors import WsrError

Indices = Int64[np.ndarray, " texts"]


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of one split, stacked over steps; NumPy arrays, moved to a device by their user."""

    inputs: dict[str, np.ndarray]
    """Of texts int32: token_ids, token_types, positions, text_ids [steps, rows, length]; starts [steps, batch].
    Of images in evaluation float32: pixel_values [steps, batch, height, width, channels]. In training, where every
    epoch has the same images again, int32: images [steps, batch], their numbers in the split."""
    labels: Int32[np.ndarray, "steps batch"] | Float32[np.ndarray, "steps batch"]
    """0 in padding slots."""
    index: Int32[np.ndarray, "steps batch"]
    """Which text of the split is in the slot; -1 where there is none."""
    tokens: int
    """Real tokens, or images; padding is not counted."""


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

    Epochs follow one another without a break: what an epoch leaves over opens the next batch.
    ``packed=False`` gives one text a row. ``rows`` defaults to what the fullest step needs.
    Raises: ``WsrError`` where ``rows`` is too few or a text is longer than ``row_length``.
    """
    plan = _training_plan(split, batch_size, steps, generator, row_length, packed)
    needed = plan.rows_needed()
    if rows is None:
        rows = needed
    elif rows < needed:
        raise WsrError(f"packing: the fullest of {steps} steps needs {needed} rows of {row_length}, got rows={rows}")
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
    """Returns the rows that ``training_batches`` would choose, so that members can share the largest.

    Draws from ``generator`` what ``training_batches`` draws: give that call a fresh one of the same stream.
    """
    return _training_plan(split, batch_size, steps, generator, row_length, packed).rows_needed()


def evaluation_batches(split: AnySplit, *, rows: int, row_length: int = 128, packed: bool = True) -> Batches:
    """Returns every text of ``split`` once, packed over the whole split, in steps of ``rows`` rows."""
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
    """Returns about ``wanted`` rows, so many that ``evaluation_batches`` leaves the fewest rows of its last step empty.

    One of three sizes: each is a program of its own.
    """
    lengths = _checked_lengths(split, row_length)
    needed = int((_pack(lengths, row_length) if packed else _one_a_row(len(split)))[0].max(initial=0)) + 1
    sizes = (wanted, max(1, 3 * wanted // 4), -(-5 * wanted // 4))
    return min(sizes, key=lambda rows: -(-needed // rows) * rows)


def row_length_for(wanted: int, *splits: AnySplit) -> int:
    """Returns the length of rows that hold every text: ``wanted``, or the longest text rounded up to 16 tokens."""
    longest = max((int(split.lengths.max()) for split in splits if len(split)), default=1)
    return max(wanted, -(-longest // 16) * 16)


def in_text_order(
    values: Shaped[Array | np.ndarray, "steps batch ..."],
    index: Int32[np.ndarray, "steps batch"],
    texts: int,
) -> Shaped[Array | np.ndarray, "{texts} ..."]:
    """Returns ``values`` of ``evaluation_batches`` with one entry a text, in the split's order.

    Raises: ``ValueError`` where ``index`` does not hold each of ``texts`` texts once.
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
    """Where each text goes: parallel arrays, one entry a placed text."""

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
        raise WsrError(f"training needs texts, steps and a batch: got {len(split)}, {steps} and {batch_size}")
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
            f"packing: text {lengths.argmax()} has {lengths.max()} tokens, more than a row of {row_length}; "
            f"load the dataset with max_length={row_length} or pack longer rows"
        )
    if len(lengths) and lengths.min() < 1:
        raise WsrError(f"packing: text {lengths.argmin()} has no tokens")
    return lengths


def _pack(lengths: Indices, row_length: int) -> tuple[Indices, Indices]:
    """Returns each text's row and its column in the row, by best-fit decreasing.

    Source: Johnson, Near-optimal bin packing algorithms, 1973: at most 11/9 of the fewest rows, and a few.
    """
    row = np.empty(len(lengths), np.int64)
    column = np.empty(len(lengths), np.int64)
    rows_with_room: list[list[int]] = [[] for _ in range(row_length + 1)]
    # Bit c is set where some row has exactly c free places: the tightest fit is then the lowest bit at or
    # above the length, found without looking at the rows.
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

    Rows of many short texts are dealt evenly: the fullest step sets the number of slots of them all.
    """
    if rows < 1:
        raise WsrError(f"packing: a step needs at least one row, got rows={rows}")
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
