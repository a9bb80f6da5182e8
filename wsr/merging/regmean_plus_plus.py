"""RegMean++: RegMean layer by layer, on inputs that the merged layers compute."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsr.merging.layers import layer_of
from wsr.merging.method import Given, at_least, share
from wsr.merging.regmean import RegMean, input_grams, shrunk, solved

if TYPE_CHECKING:
    from wsr.region.region import Region


@dataclass(frozen=True)
class RegMeanPlusPlus(RegMean):
    """RegMean++: ``W = (sum_k G_k)^-1 sum_k G_k W_k`` as in RegMean, layer after layer; averages other leaves.

    ``G_k = X_k^T X_k`` of a dense layer in layer ``l`` is taken in a model that has the merged layers below ``l`` and
    layer ``l`` of member ``k``, on texts of the member's own fine-tuning split. RegMean takes all layers from the
    member. Token tables and norms are averaged before. Dense layers outside layers come last, or first if they belong
    to the embedding.

    Source: Nguyen et al., RegMean++: enhancing effectiveness and generalization of regression mean for model merging,
    2025, with 256 texts and off-diagonal entries times 0.95, as in fusion_bench.

    Example:
      >>> import wsr
      >>> method = wsr.merging.RegMeanPlusPlus(texts=64)
      >>> method.needs  # wsr.merge(region, method, wsr.merging.Given(own={"sst2": sst2, "mnli": mnli}))
      ('own',)
    """

    texts: int = at_least(0, 256, "Number of texts read from each member's dataset; 0 for all.")
    shrink: float = share(0.95, "Factor of the entries off the diagonal of each Gram matrix.")

    def merge(self, region: "Region", given: Given) -> Mapping[str, Any]:
        """Returns the merged parameters; memory holds the merged model, one member, and the matrices of one layer."""
        from wsr.geometry.trees import flatten, nest
        from wsr.merging.own_texts import first_texts, own_dataset
        from wsr.runtime.progress import progress

        splits = [first_texts(own_dataset(member, given).splits["finetune"], self.texts) for member in region.members]
        merged = {path: np.zeros(np.shape(leaf)) for path, leaf in flatten(region.base).items()}
        for member in region.members:
            for path, leaf in flatten(member.load()).items():
                merged[path] += np.asarray(leaf, np.float64) / len(region)
        stages = sorted({_stage(path) for path in merged})
        with progress("Gram matrices", len(stages) * len(region), "members") as counter:
            for stage in stages:
                here = {path for path in merged if _stage(path) == stage}
                grams: dict[str, np.ndarray] = {}
                products: dict[str, np.ndarray] = {}
                for member, split in zip(region.members, splits, strict=True):
                    leaves = flatten(member.load())
                    mixed = {
                        path: np.asarray(leaves[path] if path in here else leaf, np.float32)
                        for path, leaf in merged.items()
                    }
                    found = input_grams(region.model, nest(mixed), split)
                    for path in here & found.keys():
                        gram = shrunk(found[path], self.shrink)
                        grams[path] = grams.get(path, 0) + gram
                        products[path] = products.get(path, 0) + gram @ np.asarray(leaves[path], np.float64)
                    counter.advance(note=member.name)
                merged |= {path: solved(gram, products[path], merged[path]) for path, gram in grams.items()}
        return nest({path: leaf.astype(np.float32) for path, leaf in merged.items()})


def _stage(path: str) -> tuple[int, bool, str, int]:
    """Returns when a leaf is merged: embeddings, then layers (an encoder's before a decoder's), then the rest."""
    place = layer_of(path)
    if place is None:
        return (0 if "embed" in path else 2, False, "", 0)
    stack, layer = place
    return (1, "decoder" in stack, stack, layer)
