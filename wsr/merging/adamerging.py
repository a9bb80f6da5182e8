"""AdaMerging: coefficients that make the merged model confident on unlabelled texts of each task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wsr.errors import WsrError
from wsr.merging.method import Given, OfData, at_least, one_of, option, positive

if TYPE_CHECKING:
    from wsr.models.model import Model
    from wsr.region.region import Region


@dataclass(frozen=True)
class AdaMerging(OfData):
    """AdaMerging: coefficients with the lowest prediction entropy on the members' own texts.

    ``min_c sum_k mean_x H(softmax(head_k(f(x; base + sum_j c_j tau_j))))``, where ``H`` is the entropy and ``tau_j``
    the task vector of member ``j``. There is one coefficient per member (``by="task"``) or per leaf of each member
    (``by="layer"``), optimised by Adam. The texts come from the validation splits of the members' own datasets; labels
    are only read if a member has no head and a probe is fitted in its place.

    Source: Yang et al., AdaMerging, 2024, with 500 steps of size 0.001 from 0.3.

    Example:
      >>> import wsr
      >>> method = wsr.merging.AdaMerging(by="task", steps=5)
      >>> method.needs  # wsr.merge(region, method, wsr.merging.Given(own={"sst2": sst2, "mnli": mnli}))
      ('own',)
    """

    needs: ClassVar = ("own",)

    by: str = one_of(
        "layer",
        "What has a coefficient of its own: task, each member; layer, each leaf of each member.",
        "task",
        "layer",
    )
    start: float | None = option(None, "Value of every coefficient before the first step.", otherwise="1 / members")
    steps: int = at_least(0, 15, "Number of gradient steps.")
    learning_rate: float = positive(
        0.02, "Learning rate of Adam, which is about how far a coefficient moves in one step."
    )
    texts: int = at_least(0, 64, "Number of texts read from each member's dataset; 0 for all.")

    def merge(self, region: "Region", given: Given) -> Mapping[str, Any]:
        """Returns the merged parameters; memory holds all members and one gradient."""

        from wsr.geometry.trees import nest

        return nest({path: np.asarray(leaf) for path, leaf in self.found(region, given)[0].items()})

    def found(self, region: "Region", given: Given) -> tuple[dict[str, Any], np.ndarray, list[float]]:
        """Optimises the coefficients.

        Args:
          region: the members.
          given: the members' own datasets, and their heads.

        Returns:
          The merged leaves, their coefficients ``[leaves, members]``, and the mean entropy in nats at each visited
            point.

        Raises:
          WsrError: if a dataset is missing, or is a regression dataset.
        """
        import jax
        import jax.numpy as jnp
        import optax

        from wsr.geometry.trees import flatten
        from wsr.merging.own_texts import batches_of, first_texts, own_dataset, own_head
        from wsr.runtime.progress import progress

        texts = []
        for member in region.members:
            dataset = own_dataset(member, given)
            if dataset.regression:
                raise WsrError(
                    f"adamerging: {dataset.name} is a regression dataset, which has no entropy; leave {member.name} out"
                )
            head = own_head(region, member, member.load(), given)
            split = first_texts(dataset.splits["validation"], self.texts)
            texts.append((head, batches_of(region.model, split), len(split)))
        base = {path: jnp.asarray(leaf) for path, leaf in flatten(region.base).items()}
        members = {path: jnp.asarray(leaf) for path, leaf in flatten(region.stacked()).items()}
        rows = jnp.full((len(base), len(region)), 1 / len(region) if self.start is None else self.start)
        optimizer = optax.adam(self.learning_rate)
        moments, entropies = optimizer.init(rows), []
        program = _entropy_and_gradient(region.model)
        mixed, along_members = jax.jit(_mixed), jax.jit(_along_members)
        with progress("entropy", self.steps + 1, "points") as counter:
            for step in range(self.steps + 1):
                point = mixed(base, members, rows)
                entropy, total = 0.0, jax.tree.map(jnp.zeros_like, point)
                for head, batches, count in texts:
                    for number, index in enumerate(batches.index):
                        inputs = {what: array[number] for what, array in batches.inputs.items()}
                        own, total = program(point, head, inputs, (index >= 0) / count, total)
                        entropy += float(own) / len(texts)
                entropies.append(entropy)
                counter.advance(note=f"mean entropy {entropy:.4f}")
                if step == self.steps:
                    break
                gradient = along_members(base, members, total)
                if self.by == "task":  # one coefficient moves all leaves
                    gradient = jnp.broadcast_to(gradient.sum(axis=0), gradient.shape)
                updates, moments = optimizer.update(gradient, moments)
                rows = optax.apply_updates(rows, updates)
        return point, np.asarray(rows), entropies


@lru_cache(maxsize=8)
def _entropy_and_gradient(model: "Model") -> Callable[..., Any]:
    """Returns a program that adds a batch's gradient in the leaves to ``total``."""
    import jax
    import jax.numpy as jnp

    from wsr.geometry.linear_head import logits
    from wsr.geometry.trees import nest

    def run(leaves: Any, head: Any, batch: Any, shares: Any, total: Any) -> Any:
        def entropy(leaves: Any) -> Any:
            chances = jax.nn.log_softmax(logits(model.encode(nest(leaves), batch), head), axis=-1)
            return -(shares * (jnp.exp(chances) * chances).sum(axis=-1)).sum()

        value, gradient = jax.value_and_grad(entropy)(leaves)
        return value, jax.tree.map(jnp.add, total, gradient)

    return jax.jit(run, donate_argnums=4)


def _mixed(base: Mapping[str, Any], members: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """Returns each leaf combined with its own row of coefficients."""
    from wsr.geometry.points import combine

    return {
        path: combine({path: leaf}, {path: members[path]}, row)[path]
        for (path, leaf), row in zip(base.items(), rows, strict=True)
    }


def _along_members(base: Mapping[str, Any], members: Mapping[str, Any], gradient: Mapping[str, Any]) -> Any:
    """Returns the gradient in each leaf's coefficients: inner products with the task vectors."""
    import jax.numpy as jnp

    return jnp.stack(
        [
            ((members[path] - leaf) * gradient[path]).reshape(len(members[path]), -1).sum(axis=1)
            for path, leaf in base.items()
        ]
    )
