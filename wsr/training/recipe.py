"""How a member is trained: the one home of the defaults. It imports no JAX, so ``wsr train --help`` is quick."""

import math
import numbers
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from wsr.errors import WsrError, nearest_names

Mode = Literal["full", "bitfit", "lora", "head"]
MODES: tuple[str, ...] = get_args(Mode)
StopOn = Literal["loss", "score"]
DropoutRng = Literal["threefry", "rbg"]
Precision = Literal["float32", "bfloat16"]  # as in wsr.models.precision, which imports JAX


def _at_least_zero(value: float) -> bool:
    return 0 <= value < math.inf


def _above_zero(value: float) -> bool:
    return 0 < value < math.inf


def _whole(value: float) -> bool:
    return value >= 1 and value.is_integer()


_BOUNDS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": ("a number, at least 0", _at_least_zero),
    "head_learning_rate": ("a number, at least 0, or None", _at_least_zero),
    "batch_size": ("a whole number, at least 1", _whole),
    "epochs": ("a number above 0", _above_zero),
    "weight_decay": ("a number, at least 0", _at_least_zero),
    "warmup": ("a fraction from 0 to 1", lambda value: 0 <= value <= 1),
    "patience": ("a whole number, at least 1, or None", _whole),
    "check_every": ("a whole number, at least 1", _whole),
    "min_improvement": ("a number, at least 0", _at_least_zero),
    "row_length": ("a whole number, at least 1", _whole),
    "lora_rank": ("a whole number, at least 1", _whole),
    "lora_alpha": ("a number above 0", _above_zero),
}
"""For each field, what is expected and whether a value fits."""


@dataclass(frozen=True)
class Recipe:
    """How a member is trained: AdamW with linear warm-up and decay.

    The defaults are those of ``wsr train`` and suit a small population on one machine. The paper's own recipe is that
    of the preset "paper" in ``wsr.studies.harness.preset``.

    Raises:
      WsrError: if a field has an invalid value; the message names the field.

    Example:
      >>> import wsr
      >>> recipe = wsr.Recipe(mode="lora", lora_rank=4, lora_alpha=8.0)
      >>> recipe.lora_scale
      2.0
      >>> "lora_rank" in recipe.settings, "lora_rank" in wsr.Recipe().settings
      (True, False)
    """

    mode: Mode = "full"
    """``full`` trains everything, ``bitfit`` the bias terms and the head, ``lora`` low-rank factors and the head,
    ``head`` the head alone."""
    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    """Learning rate of the newly initialised head; None: that of the encoder."""
    batch_size: int = 32
    epochs: float = 3.0
    weight_decay: float = 0.01
    """Weight decay of the matrices; biases and layer norms are not decayed."""
    warmup: float = 0.06
    """Fraction of the steps during which the learning rate rises."""
    dropout: bool = True
    """Whether the dropout rates of the architecture's configuration are applied."""
    dropout_rng: DropoutRng = "threefry"
    """Generator of dropout's random bits. ``rbg`` is faster on TPUs, but its bits depend on the kind of device and the
    version of XLA."""
    precision: Precision = "float32"
    """Precision of the encoder's matrix products, forwards and backwards; the weights and their updates are float32."""
    patience: int | None = None
    """Checks on the validation split without improvement after which a member stops; None: no early stopping."""
    stop_on: StopOn = "loss"
    """What is checked: the ``loss``, or the ``score`` in the dataset's own metric, as in the paper's released code."""
    check_every: int = 50
    """Steps between two checks; a training of fewer than ten times as many steps is checked ten times."""
    min_improvement: float = 0.001
    """Change of the loss or the score that counts as an improvement."""
    row_length: int = 64
    """Tokens of a packed row; longer texts make longer rows."""
    lora_rank: int = 8
    """Rank of the factors whose product is added to a matrix."""
    lora_alpha: float = 16.0
    """The product is scaled by ``lora_alpha / lora_rank``."""
    lora_targets: str = r".*/(query|value|query_key_value)/kernel"
    """Regular expression for the paths of the matrices that have factors. The default is that of Hu et al. 2021, and
    the joint matrix of queries, keys and values in architectures that have one."""
    hidden_head: bool = False
    """Whether the head has a dense layer and a tanh before its output, as RoBERTa's classifier does."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if self.mode not in MODES:
            raise WsrError(
                f"recipe: mode is one of {', '.join(MODES)}, found {self.mode!r}; "
                f"nearest: {nearest_names(self.mode, MODES)}"
            )
        choices = {"stop_on": StopOn, "dropout_rng": DropoutRng, "precision": Precision}
        for name, allowed in ((name, get_args(choice)) for name, choice in choices.items()):
            if getattr(self, name) not in allowed:
                raise WsrError(f"recipe: {name} is one of {', '.join(allowed)}, found {getattr(self, name)!r}")
        for name, (expected, fits) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None and name in ("head_learning_rate", "patience"):
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not fits(float(value)):
                raise WsrError(f"recipe: {name}: expected {expected}, found {value!r}")
        try:
            re.compile(self.lora_targets)
        except re.error as error:
            raise WsrError(
                f"recipe: lora_targets = {self.lora_targets!r} is not a valid regular expression: {error}"
            ) from error

    @property
    def lora_scale(self) -> float:
        """The factor by which the product of the factors is multiplied."""
        return self.lora_alpha / self.lora_rank

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that matter in this mode, by name; fields newer than the first stores only if they are set."""
        matter = dict(asdict(self))
        if not self.hidden_head:
            del matter["hidden_head"]
        if self.stop_on == "loss" or self.patience is None:
            del matter["stop_on"]
        if self.dropout_rng == "threefry" or not self.dropout:
            del matter["dropout_rng"]
        if self.precision == "float32":
            del matter["precision"]
        return {name: value for name, value in matter.items() if self.mode == "lora" or name[:5] != "lora_"}
