"""Averages of the checkpoints of one run, in its order: uniform, exponential, or in place of a learning-rate decay."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64

from wsr.errors import WsrError
from wsr.exchange.file_card import card_of_files, licences_of_files
from wsr.merging.adapters import located
from wsr.merging.files import merge_paths
from wsr.merging.ingredients import Ingredients, Leaf, Out
from wsr.merging.method import OfWeights, weights

Row = Float64[np.ndarray, " checkpoints"]
Kind = Literal["uniform", "ema", "decay", "undo_decay"]
KINDS: tuple[Kind, ...] = ("uniform", "ema", "decay", "undo_decay")
Shape = Literal["linear", "cosine", "sqrt"]
SHAPES: dict[Shape, Callable[[Row], Row]] = {
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + np.cos(np.pi * progress)) / 2,
    "sqrt": lambda progress: 1 - np.sqrt(progress),
}
"""The learning rate during a decay to zero, relative to its start, by the share of the decay that has passed."""


@dataclass(frozen=True)
class Averaged:
    """What an average of checkpoints consists of."""

    weights: dict[str, float]
    """Weight of each checkpoint, in the order of the run; they add up to 1."""
    notes: tuple[str, ...]
    """What was adapted, for the user."""


def average(
    checkpoints: Sequence[str | Path],
    folder: str | Path,
    *,
    kind: Kind = "uniform",
    last: int | None = None,
    smoothing: float = 0.9,
    shape: Shape = "linear",
    force: bool = False,
    license: str | None = None,
    command: str = "",
) -> Averaged:
    """Averages the checkpoints of one run into a new folder, leaf by leaf.

    The checkpoints are put in the order of the numbers at the end of their names; without numbers, they stay in the
    given order. Each weight is ``sum_k w_k theta_k / sum_k w_k``: added up in float64 in the order of the run, then
    rounded to float32 and to the type of the tensor.

    Args:
      checkpoints: Hugging Face folders or safetensors files.
      folder: the folder to write; it must not exist.
      kind: the weights, see ``weights_of``.
      last: how many checkpoints from the end are averaged; None: all.
      smoothing: of ``ema``.
      shape: of ``decay`` and ``undo_decay``.
      force: whether checkpoints may differ in config, vocabulary, classes and base.
      license: licence in the model card; None: that of the checkpoints, if their cards name one.
      command: command that writes the folder again, for the card.

    Raises:
      WsrError: if the checkpoints do not fit together, two have the same number, their licences are unclear or differ
        and none is given, or the folder exists.

    Example:
      >>> import tempfile, wsr
      >>> place, base, region = tempfile.mkdtemp(), wsr.load("tiny"), wsr.made_up_region(2)
      >>> for number, member in enumerate(region.members):
      ...     wsr.export(base.with_params(member.load()), f"{place}/step-{number}")
      >>> done = wsr.average([f"{place}/step-0", f"{place}/step-1"], f"{place}/average", kind="ema", smoothing=0.75)
      >>> list(done.weights.values())
      [0.75, 0.25]
    """
    ordered, times = _in_order([str(own) for own in checkpoints])
    if last is not None:
        if last > len(ordered):
            raise WsrError(f"--last={last}: there are only {len(ordered)} checkpoints")
        ordered, times = ordered[-last:], times[-last:]
    row = weights_of(times, kind, smoothing=smoothing, shape=shape)
    card = card_of_files(
        ordered,
        [(name, located(name)) for name in ordered],
        licences_of_files(ordered, license),
        title=Path(folder).name,
        made=f"{kind} average of {len(ordered)} checkpoints of one run",
        command=command,
    )
    notes = merge_paths(ordered, _InOrder(weights=tuple(row.tolist())), None, Path(folder), force=force, card=card)
    return Averaged(dict(zip(ordered, (row / row.sum()).tolist(), strict=True)), tuple(notes))


def weights_of(times: Row, kind: Kind, *, smoothing: float = 0.9, shape: Shape = "linear") -> Row:
    """Returns one weight for each checkpoint.

    - ``uniform``: equal weights (Izmailov et al. 2018, SWA; Kaddour 2022, LAWA).
    - ``ema``: the exponential moving average ``m_k = smoothing m_{k-1} + (1 - smoothing) theta_k``, ``m_0 = theta_0``.
    - ``decay``: acts on a run with a constant learning rate like a decay of it. With the factor ``f_k`` of the rate
      between checkpoints k - 1 and k, the result is ``theta_0 + sum_k f_k (theta_k - theta_{k-1})`` (Tian et al. 2025,
      WSM: the weights are differences of the factors).
    - ``undo_decay``: takes a decay back, to first order: ``theta_0 + sum_k (theta_k - theta_{k-1}) / f_k``. The decay
      began at the first checkpoint and reached 0 at the last. Some weights are negative.

    Args:
      times: steps at which the checkpoints were saved, rising.
      kind: one of the above.
      smoothing: of ``ema``, from 0 to 1.
      shape: of ``decay`` and ``undo_decay``: the factor f of the learning rate, taken between two checkpoints.

    Example:
      >>> import numpy as np
      >>> from wsr.merging.steps import weights_of
      >>> weights_of(np.arange(3.0), "decay").tolist()
      [0.25, 0.5, 0.25]
    """
    count = len(times)
    if not 0 <= smoothing <= 1:
        raise WsrError(f"--smoothing={smoothing:g}: expected a number from 0 to 1")
    if kind == "uniform":
        return np.ones(count)
    if kind == "ema":
        row = (1 - smoothing) * smoothing ** np.arange(count - 1.0, -1, -1)
        row[0] = smoothing ** (count - 1)
        return row
    if count < 2:
        raise WsrError(f"--weights={kind} needs at least two checkpoints, found {count}")
    factors = SHAPES[shape](((times[1:] + times[:-1]) / 2 - times[0]) / (times[-1] - times[0]))
    if kind == "undo_decay":
        factors = 1 / factors
    return np.append(1.0, factors) - np.append(factors, 0.0)


@dataclass(frozen=True)
class _InOrder(OfWeights):
    """The average whose sums are taken in the order of the members, whatever the pieces."""

    wide: ClassVar = True
    based: ClassVar = False

    weights: tuple[float, ...] | None = weights()

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        row = np.asarray(self.weights, np.float64)
        whole = row.sum()

        def fill(leaf: Leaf, out: Out) -> None:
            for block in leaf.within(around="zero").blocks():
                total = row[0] * block.vectors[0].astype(np.float64)
                for weight, vector in zip(row[1:], block.vectors[1:], strict=True):
                    total += weight * vector.astype(np.float64)
                block.put(out, total / whole)

        return fill


def _in_order(names: list[str]) -> tuple[list[str], Row]:
    """Returns the checkpoints in the order of the run, and the step of each: its number, or its place."""
    if not names:
        raise WsrError("no checkpoint is named: wsr average STEP... --to=FOLDER")
    found = [re.search(r"(\d+)$", Path(name).name.removesuffix(".safetensors")) for name in names]
    numbers = [int(own[1]) for own in found if own]
    if len(numbers) < len(names):
        return names, np.arange(float(len(names)))
    if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise WsrError(f"several checkpoints have the number {twice[0]} at the end of their name; name each step once")
    order = np.argsort(numbers)
    return [names[at] for at in order], np.asarray(numbers, np.float64)[order]
