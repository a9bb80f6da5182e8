"""Splits an encoder's parameters into frozen arrays and arrays that a mode trains."""

from wsr.geometry.trees import flatten
from wsr.training.job import Job
from wsr.training.lora import initial_factors
from wsr.types import AnyArray, Params


def partition(start: Params, job: Job) -> tuple[dict[str, AnyArray], dict[str, AnyArray]]:
    """Returns, by path, the frozen arrays, which members share, and the trained arrays, of which each has a copy."""
    leaves, mode = flatten(start), job.recipe.mode
    if mode == "head":  # trained on features, without the encoder
        return {}, {}
    if mode == "lora":
        return leaves, dict(initial_factors(job, leaves))
    trained = {path for path in leaves if mode == "full" or path.rsplit("/", 1)[-1] == "bias"}
    return (
        {path: leaf for path, leaf in leaves.items() if path not in trained},
        {path: leaves[path] for path in sorted(trained)},
    )
