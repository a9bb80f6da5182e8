"""How a member is trained: the one home of the defaults. It imports no JAX, so ``wsr train --help`` is quick."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Mode = Literal["full", "bitfit", "lora", "head"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True)
class Recipe:
    """How a member is trained: AdamW with linear warm-up and decay.

    The defaults are those of ``wsr train`` and suit a small population on one machine. The paper's own recipe is that
    of the preset "paper" in ``wsr.studies.harness.preset``.

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
    patience: int | None = None
    """Checks of the validation loss without improvement after which a member stops; None: no early stopping."""
    check_every: int = 50
    """Steps between two checks."""
    min_improvement: float = 0.001
    """Decrease of the validation loss that counts as an improvement."""
    row_length: int = 64
    """Tokens of a packed row; longer texts make longer rows."""
    lora_rank: int = 8
    """Rank of the factors whose product is added to a matrix."""
    lora_alpha: float = 16.0
    """The product is scaled by ``lora_alpha / lora_rank``."""
    lora_targets: str = r".*/(query|value|query_key_value)/kernel"
    """Regular expression for the paths of the matrices that have factors. The default is that of Hu et al. 2021, and
    the joint matrix of queries, keys and values in architectures that have one."""

    @property
    def lora_scale(self) -> float:
        """The factor by which the product of the factors is multiplied."""
        return self.lora_alpha / self.lora_rank

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that matter in this mode, by name."""
        return {name: value for name, value in asdict(self).items() if self.mode == "lora" or name[:5] != "lora_"}
