"""What a study would train and evaluate, and what that would take: for a look before a long run."""

from dataclasses import dataclass

from wsr.errors import WsrError
from wsr.studies.preset import Preset


@dataclass(frozen=True)
class Work:
    """Counts of one study."""

    members: int
    """Models to fine-tune, if no other study has trained them."""
    points: int
    """Points to evaluate exactly."""
    few_shot_runs: int = 0
    """Short trainings from one start."""
    epochs: float | None = None
    """Of a member, where they are not the preset's."""

    def told(self, preset: Preset) -> str:
        """Returns lines that a person reads."""
        lines = [
            f"members to fine-tune: {self.members} on {len(preset.datasets)} datasets "
            f"({', '.join(preset.datasets[:8])}{', ...' if len(preset.datasets) > 8 else ''})",
            f"points to evaluate:   {self.points}",
            f"few-shot runs:        {self.few_shot_runs}",
        ]
        return "\n".join([*lines, *self._cost(preset)])

    def _cost(self, preset: Preset) -> list[str]:
        """Upper bounds from the number of parameters and this machine's rate of matrix products."""
        if not (preset.finetune_texts and preset.probe_texts and preset.test_texts):
            return [
                "time, memory, disk:   not estimated: splits are used whole; give --finetune_texts, --probe_texts ..."
            ]
        try:
            parameters = _parameters(preset)
        except WsrError as error:
            return [f"time, memory, disk:   not estimated: {error}"]
        trained = self.members * preset.finetune_texts * (preset.epochs if self.epochs is None else self.epochs)
        read = self.points * (preset.probe_texts + preset.test_texts)
        # Two operations a parameter and token forward, twice as many backward.
        operations = 2 * parameters * preset.max_length * (3 * trained + read)
        hours = operations / (_SHARE * _matmul_rate()) / 3600
        return [
            f"time:                 at most about {hours:.1f} hours at {100 * _SHARE:.0f} % of this machine's rate of "
            "matrix products (assumed), if no text is shorter than the longest",
            f"memory:               {6 * 4 * parameters / 2**30:.1f} GiB for the weights of a member in training",
            f"disk:                 {self.members * 4 * parameters / 2**30:.1f} GiB for the members",
        ]


_SHARE = 0.4  # of the rate of matrix products: assumed, not measured


def _parameters(preset: Preset) -> int:
    import jax

    from wsr.models import load

    return sum(leaf.size for leaf in jax.tree.leaves(load(preset.base, pooling=preset.pooling).params))


def _matmul_rate() -> float:
    """Operations a second of a square float32 product."""
    import time

    import jax
    import jax.numpy as jnp

    left = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(left, left).block_until_ready()
    start = time.perf_counter()
    product(left, left).block_until_ready()
    return 2 * 2048**3 / (time.perf_counter() - start)
