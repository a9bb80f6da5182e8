"""Fisher merging: averages that weight each parameter of each member by how much its predictions depend on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wsr.merging.method import Given, OfData, at_least, one_of, positive, weights

if TYPE_CHECKING:
    from wsr.data.dataset import AnySplit
    from wsr.models.model import Model
    from wsr.region.region import Region
    from wsr.types import Head, Params


@dataclass(frozen=True)
class Fisher(OfData):
    """Fisher merging: ``theta = sum_k w_k F_k theta_k / sum_k w_k F_k``, entry by entry.

    ``F_k = mean_x E_y[(d log p(y | x) / d theta_k)^2]`` over texts of the member's own fine-tuning split under its own
    head, with ``y`` drawn from the member's predictions. For regression the squared error takes the place of ``-2 log
    p``.

    Source: Matena and Raffel, Merging models with Fisher-weighted averaging, 2022.

    Example:
      >>> import wsr
      >>> method = wsr.merging.Fisher(texts=32)
      >>> method.needs  # wsr.merge(region, method, wsr.merging.Given(own={"sst2": sst2, "mnli": mnli}))
      ('own',)
    """

    needs: ClassVar = ("own",)

    texts: int = at_least(0, 64, "Number of texts read from each member's dataset; 0 for all.")
    labels: str = one_of(
        "drawn",
        "Labels in the Fisher information: drawn, one label per text from the member's predictions; all, every label "
        "weighted by its probability.",
        "drawn",
        "all",
    )
    weights: tuple[float, ...] | None = weights()
    floor: float = positive(
        1e-12,
        "Number added to every entry of the Fisher information, so that entries with none are averaged.",
    )
    seed: int = at_least(0, 0, "Seed of the labels drawn.")

    def merge(self, region: "Region", given: Given) -> Mapping[str, Any]:
        """Returns the merged parameters; memory holds four models: a member, its Fisher, and two sums."""
        import jax
        import jax.numpy as jnp

        from wsr.merging.own_texts import first_texts, own_dataset, own_head
        from wsr.runtime.progress import progress

        factors = np.ones(len(region)) if self.weights is None else np.asarray(self.weights)
        base = jax.tree.map(jnp.asarray, region.base)
        moved = total = jax.tree.map(jnp.zeros_like, base)
        with progress("Fisher information", len(region), "members") as counter:
            for member, factor in zip(region.members, factors.tolist(), strict=True):
                params = jax.tree.map(jnp.asarray, member.load())
                head = own_head(region, member, params, given)
                split = first_texts(own_dataset(member, given).splits["finetune"], self.texts)
                fisher = diagonal_fisher(
                    region.model, params, head, split, labels=self.labels, seed=self.seed, name=member.name
                )
                moved, total = _added(moved, total, fisher, params, base, factor, self.floor)
                counter.advance(note=member.name)
        return jax.tree.map(lambda start, sum_, weight: np.asarray(start + sum_ / weight), base, moved, total)


def diagonal_fisher(
    model: "Model",
    params: "Params",
    head: "Head",
    split: "AnySplit",
    *,
    labels: str = "all",
    seed: int = 0,
    name: str = "",
) -> "Params":
    """Returns the diagonal of the Fisher information of the encoder's parameters, a mean over texts.

    Args:
      model: the architecture.
      params: parameters of the encoder.
      head: the linear head.
      split: the texts; their labels are not read.
      labels: ``"all"``: the exact expectation over labels; ``"drawn"``: one label per text, drawn from the predictions.
      seed: seed of the drawn labels.
      name: name of the member; with the seed it determines the drawn labels.
    """
    import jax
    import jax.numpy as jnp

    from wsr.merging.own_texts import batches_of
    from wsr.runtime import seeds

    # One text at a time: the square of a sum is not the sum of squares.
    batches = batches_of(model, split, rows=1, row_length=16, packed=False)
    total = jax.tree.map(jnp.zeros_like, params)
    program = _one_text(model, labels)
    key = seeds.stream(seed, "fisher", name)
    for step in range(len(split)):
        batch = {what: array[step] for what, array in batches.inputs.items()}
        total = program(params, head, batch, jax.random.fold_in(key, step), total)
    return jax.tree.map(lambda leaf: leaf / len(split), total)


@lru_cache(maxsize=8)
def _one_text(model: "Model", labels: str) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    from wsr.geometry.linear_head import logits

    def add(params: Any, head: Any, batch: Any, key: Any, total: Any) -> Any:
        outputs, back = jax.vjp(lambda own: logits(model.encode(own, batch), head)[0], params)
        classes = outputs.shape[0]
        if classes == 1:
            slopes, chances = jnp.ones((1, 1)), jnp.ones(1)
        else:
            chances = jax.nn.softmax(outputs)
            slopes = jnp.eye(classes) - chances  # derivatives of log p(y) in the logits, one row per y
            if labels == "drawn":
                drawn = jax.random.categorical(key, outputs)
                slopes, chances = slopes[drawn][None], jnp.ones(1)

        def one(sums: Any, own: Any) -> tuple[Any, None]:
            slope, chance = own
            return jax.tree.map(lambda sum_, leaf: sum_ + chance * leaf**2, sums, back(slope)[0]), None

        return jax.lax.scan(one, total, (slopes, chances))[0]

    return jax.jit(add, donate_argnums=4)


def _added(moved: Any, total: Any, fisher: Any, params: Any, base: Any, factor: float, floor: float) -> tuple[Any, Any]:
    import jax

    share = jax.tree.map(lambda leaf: factor * (leaf + floor), fisher)
    moved = jax.tree.map(lambda sum_, own, leaf, start: sum_ + own * (leaf - start), moved, share, params, base)
    return moved, jax.tree.map(lambda sum_, own: sum_ + own, total, share)
