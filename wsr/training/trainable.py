"""Which arrays a mode trains and which stay."""

from wsr.geometry.trees import flatten
from wsr.training.job import Job
from wsr.training.lora import initial_factors
from wsr.types import AnyArray, Params


def partition(start: Params, job: Job) -> tuple[dict[str, AnyArray], dict[str, AnyArray]]:
    """Returns, by path, the arrays that stay, which members share, and those that are trained, each member's own."""
    leaves, mode = flatten(start), job.recipe.mode
    if mode == "head":  # trained on features: no encoder runs
        return {}, {}
    if mode == "lora":
        return leaves, dict(initial_factors(job, leaves))
    trained = {path for path in leaves if mode == "full" or path.rsplit("/", 1)[-1] == "bias"}
    return (
        {path: leaf for path, leaf in leaves.items() if path not in trained},
        {path: leaves[path] for path in sorted(trained)},
    )
