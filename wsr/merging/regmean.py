"""RegMean: replaces each dense layer by the one whose outputs are closest to the members' on their own texts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wsr.errors import WsrError
from wsr.merging.method import Given, OfData, at_least, share

if TYPE_CHECKING:
    from wsr.data.dataset import AnySplit
    from wsr.models.model import Model
    from wsr.region.region import Region
    from wsr.types import Params


@dataclass(frozen=True)
class RegMean(OfData):
    """RegMean: ``W = (sum_k G_k)^-1 sum_k G_k W_k`` for dense kernels ``[inputs, outputs]``; averages other leaves.

    ``G_k = X_k^T X_k`` of the layer's inputs in member ``k`` on texts of its own fine-tuning split, a mean over tokens,
    with off-diagonal entries multiplied by ``shrink``. Apart from that shrinkage ``W`` minimises ``sum_k |X_k W - X_k
    W_k|^2``.

    Source: Jin et al., Dataless knowledge fusion by merging weights of language models, 2023.

    Example:
      >>> import wsr
      >>> method = wsr.merging.RegMean(texts=64)
      >>> method.needs  # wsr.merge(region, method, wsr.merging.Given(own={"sst2": sst2, "mnli": mnli}))
      ('own',)
    """

    needs: ClassVar = ("own",)

    texts: int = at_least(0, 128, "Number of texts read from each member's dataset; 0 for all.")
    shrink: float = share(0.9, "Factor of the entries off the diagonal of each Gram matrix.")

    def merge(self, region: "Region", given: Given) -> Mapping[str, Any]:
        """Returns the merged parameters; memory holds one member, and a Gram matrix and a kernel per dense layer."""
        from wsr.geometry.trees import flatten, nest
        from wsr.merging.own_texts import first_texts, own_dataset
        from wsr.runtime.progress import progress

        grams: dict[str, np.ndarray] = {}
        products: dict[str, np.ndarray] = {}
        sums = {path: np.zeros(np.shape(leaf)) for path, leaf in flatten(region.base).items()}
        with progress("Gram matrices", len(region), "members") as counter:
            for member in region.members:
                params = member.load()
                leaves = {path: np.asarray(leaf, np.float64) for path, leaf in flatten(params).items()}
                split = first_texts(own_dataset(member, given).splits["finetune"], self.texts)
                for path, gram in input_grams(region.model, params, split).items():
                    own = shrunk(gram, self.shrink)
                    grams[path] = grams.get(path, 0) + own
                    products[path] = products.get(path, 0) + own @ leaves[path]
                for path, leaf in leaves.items():
                    sums[path] += leaf
                counter.advance(note=member.name)
        means = {path: total / len(region) for path, total in sums.items()}
        fitted = {path: solved(gram, products[path], means[path]) for path, gram in grams.items()}
        return nest({path: (fitted.get(path, mean)).astype(np.float32) for path, mean in means.items()})


def input_grams(model: "Model", params: "Params", split: "AnySplit") -> dict[str, np.ndarray]:
    """Returns ``X^T X`` of the inputs of each dense layer, a mean over tokens, by the path of the layer's kernel.

    Args:
      model: the architecture.
      params: parameters of the encoder.
      split: the texts.

    Raises:
      WsrError: if the architecture does not expose the inputs of its dense layers.
    """
    from wsr.merging.own_texts import batches_of

    if model.kernel_inputs is None:
        raise WsrError(
            f"regmean: {model.name} does not expose the inputs of its dense layers; models made by "
            "from_nnx or from_linen do"
        )
    batches = batches_of(model, split)
    totals: dict[str, np.ndarray] = {}
    counts: dict[str, float] = {}
    for step, index in enumerate(batches.index):
        batch = {what: array[step] for what, array in batches.inputs.items()}
        for path, (gram, count) in _program(model)(params, batch, index >= 0).items():
            totals[path] = totals.get(path, 0) + np.asarray(gram, np.float64)
            counts[path] = counts.get(path, 0) + float(count)
    return {path: total / counts[path] for path, total in totals.items()}


@lru_cache(maxsize=8)
def _program(model: "Model") -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    from wsr.geometry.linear_head import matmul

    inputs_of = model.kernel_inputs
    assert inputs_of is not None

    def grams(params: Any, batch: Any, there: Any) -> Any:
        masks = {there.size: there.reshape(-1)}
        if "text_ids" in batch:  # positions without a text do not count
            masks[batch["text_ids"].size] = batch["text_ids"].reshape(-1) >= 0

        def of_layer(calls: Any) -> Any:
            gram, count = jnp.zeros(()), jnp.zeros(())
            for inputs in calls:
                flat = inputs.reshape(-1, inputs.shape[-1]).astype(jnp.float32)
                mask = masks.get(len(flat), jnp.ones(len(flat), bool))
                flat = jnp.where(mask[:, None], flat, 0.0)
                gram += matmul(flat.T, flat)
                count += mask.sum()
            return gram, count

        return {path: of_layer(calls) for path, calls in inputs_of(params, batch).items() if calls}

    return jax.jit(grams)


def shrunk(gram: np.ndarray, shrink: float) -> np.ndarray:
    """Returns a Gram matrix whose entries off the diagonal are multiplied by ``shrink``."""
    return shrink * gram + (1 - shrink) * np.diag(np.diag(gram))


def solved(gram: np.ndarray, product: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Returns the kernel ``gram^-1 product``; along directions that no text has, it is the mean of the members."""
    ridge = 1e-8 * max(float(np.trace(gram)) / len(gram), np.finfo(float).tiny) * np.eye(len(gram))
    return np.linalg.solve(gram + ridge, product + ridge @ mean)
