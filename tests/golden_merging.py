"""Makes tests/golden_merging.npz: what mergekit 0.1.5 gives for some recipes on small random tensors.

Run it where mergekit and PyTorch are installed, neither of which the tests need, from the root of the repository:

    python tests/golden_merging.py

Random drops are the one thing that cannot agree: PyTorch's draws are replaced by those of ``wsr.runtime.seeds``, as
``wsr.merging.sparse`` takes them, so that everything else is compared.
"""

import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
NAMES = ("base", "a", "b", "c")
SHAPES = {"embeddings.weight": (12, 8), "layer.0.dense.weight": (9, 6), "layer.0.dense.bias": (9,), "norm.weight": (7,)}
THREE = [("a", {"weight": 0.5, "density": 0.4}), ("b", {"weight": 1.0, "density": 0.7}), ("c", {"weight": 0.3})]
WEIGHTS = [("a", {"weight": 0.5}), ("b", {"weight": 1.0}), ("c", {"weight": 0.3})]
RECIPES = {
    "linear": ("linear", None, WEIGHTS, {}),
    "linear_plain": ("linear", None, WEIGHTS, {"normalize": False}),
    "linear_filtered": (
        "linear",
        None,
        [("a", {"weight": [{"filter": "dense", "value": 0.2}, {"value": 1.0}]}), ("b", {})],
        {"weight": 0.7},
    ),
    "slerp": ("slerp", "base", [("base", {}), ("a", {})], {"t": 0.3}),
    "slerp_filtered": (
        "slerp",
        "base",
        [("base", {}), ("a", {})],
        {"t": [{"filter": "dense.weight", "value": 0.9}, {"value": 0.1}]},
    ),
    "multislerp": ("multislerp", None, WEIGHTS, {}),
    "multislerp_base": ("multislerp", "base", WEIGHTS, {}),
    "karcher": ("karcher", None, [("a", {}), ("b", {}), ("c", {})], {}),
    "model_stock": ("model_stock", "base", [("a", {}), ("b", {}), ("c", {})], {}),
    "task_arithmetic": ("task_arithmetic", "base", WEIGHTS, {"lambda": 0.7}),
    "task_arithmetic_normalised": ("task_arithmetic", "base", WEIGHTS, {"normalize": True}),
    "ties": ("ties", "base", THREE, {"density": 0.5}),
    "ties_base_listed": ("ties", "base", [("base", {}), *THREE], {"normalize": False, "lambda": 0.6}),
    "ties_rescaled": ("ties", "base", THREE, {"rescale": True}),
    "dare_linear": ("dare_linear", "base", THREE, {"density": 0.6}),
    "dare_ties": ("dare_ties", "base", THREE, {"density": 0.6}),
    "dare_plain": ("dare_ties", "base", THREE, {"rescale": False, "normalize": True}),
    "breadcrumbs": ("breadcrumbs", "base", THREE, {"gamma": 0.1, "density": 0.5}),
    "breadcrumbs_ties": ("breadcrumbs_ties", "base", THREE, {"gamma": 0.1, "density": 0.5}),
    "della": ("della", "base", THREE, {"epsilon": 0.1, "density": 0.6}),
    "della_linear": ("della_linear", "base", THREE, {"epsilon": 0.1, "density": 0.6}),
    "sce": ("sce", "base", [("a", {}), ("b", {}), ("c", {})], {"select_topk": 0.6}),
    "nuslerp": ("nuslerp", None, WEIGHTS[:2], {}),
    "nuslerp_base": ("nuslerp", "base", WEIGHTS[:2], {}),
    "nuslerp_outputs": ("nuslerp", None, WEIGHTS[:2], {"nuslerp_flatten": False}),
    "nuslerp_inputs": ("nuslerp", "base", WEIGHTS[:2], {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "nuslerp_cancelled": ("nuslerp", None, [("a", {"weight": 1.0}), ("b", {"weight": -1.0})], {}),
    "nearswap": ("nearswap", "base", [("base", {}), ("a", {})], {"t": 0.05}),
    "arcee_fusion": ("arcee_fusion", "base", [("a", {})], {}),
    "ram": ("ram", "base", [("a", {}), ("b", {}), ("c", {})], {"epsilon": 0.2}),
    "ram_all": ("ram", "base", [("a", {}), ("b", {}), ("c", {})], {}),
    "ramplus_tl": ("ramplus_tl", "base", [("a", {}), ("b", {}), ("c", {})], {"epsilon": 0.4, "r": 0.3, "alpha": 2.0}),
    "ramplus_tl_all": ("ramplus_tl", "base", [("a", {}), ("b", {})], {}),
    "passthrough": ("passthrough", None, [("a", {})], {}),
    "passthrough_filtered": (
        "passthrough",
        None,
        [("a", {"scale": [{"filter": "dense", "value": 0.5}, {"value": 2.0}]})],
        {},
    ),
    "sce_all": ("sce", "base", [("a", {}), ("b", {}), ("c", {})], {}),
}
"""Name: method, base, members with their parameters, parameters of all."""


def recipe(name, path):
    """A recipe as YAML (which JSON is), its models being ``path(member)``."""
    method, base, members, parameters = RECIPES[name]
    content = {"merge_method": method, "models": [{"model": path(own), "parameters": p} for own, p in members]}
    return json.dumps(content | ({"base_model": path(base)} if base else {}) | {"parameters": parameters})


def models():
    """The input: a base, and members near it."""
    generator = np.random.default_rng(0)
    base = {path: generator.standard_normal(shape).astype(np.float32) for path, shape in SHAPES.items()}
    near = {
        own: {path: leaf + generator.standard_normal(leaf.shape).astype(np.float32) / 3 for path, leaf in base.items()}
        for own in NAMES[1:]
    }
    return {"base": base, **near}


def main():
    import torch
    import yaml
    from mergekit.options import MergeOptions
    from mergekit.scripts import merge_raw_pytorch as raw
    from safetensors.numpy import load_file, save_file

    found = {}
    for name in RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            paths = {own: str(Path(folder) / f"{own}.safetensors") for own in NAMES}
            for own, tensors in models().items():
                save_file(tensors, paths[own])
            config = raw.RawPyTorchMergeConfig.model_validate(yaml.safe_load(recipe(name, paths.get)))
            raw.SimpleLoaderCache._instance = None
            draws = Draws([paths[own] for own, _ in RECIPES[name][2] if own != RECIPES[name][1]])
            torch.bernoulli = draws
            tasks = raw.plan_flat_merge(config, str(Path(folder) / "out"), False, False, MergeOptions())
            execute = raw.ExecuteMergeMethodTask.execute

            def noted(task, *arguments, execute=execute, draws=draws, **more):
                draws.begin(task.output_weight.name)
                return execute(task, *arguments, **more)

            raw.ExecuteMergeMethodTask.execute = noted
            raw.Executor(tasks, math_device="cpu", storage_device="cpu").execute()
            raw.ExecuteMergeMethodTask.execute = execute
            (file,) = (Path(folder) / "out").glob("*.safetensors")
            found |= {f"{name}/{path}": tensor for path, tensor in load_file(file).items()}
    np.savez_compressed(FILE, **found)
    print(f"{FILE}: {FILE.stat().st_size / 1024:.0f} KiB, {len(RECIPES)} recipes")


class Draws:
    """Stands in for ``torch.bernoulli``: our uniform numbers under the chances that it is given."""

    def __init__(self, members):
        self.members = members

    def begin(self, leaf):
        """The next calls are for the members of this tensor, one after another."""
        self.leaf, self.turn = leaf, 0

    def __call__(self, chances):
        import torch

        # Named by what the recipe of the test calls the member, not by where its file lies.
        member = Path(self.members[self.turn]).name
        self.turn += 1
        if float(chances.max()) >= 1:
            return torch.ones_like(chances)
        digest = zlib.crc32("\x1f".join(("merge", self.leaf, member)).encode())
        numbers = np.random.default_rng([0, digest]).random(chances.numel(), dtype=np.float32)
        return (torch.from_numpy(numbers).reshape(chances.shape) < chances).to(chances.dtype)


if __name__ == "__main__":
    sys.exit(main())
