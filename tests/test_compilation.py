"""Compiled programs are found again: by the next point, and by the next process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import monitoring

from wsr.engine.evaluate import evaluate
from wsr.geometry import sampling
from wsr.region.region import from_params

SCRIPT = Path(__file__).with_name("evaluation_in_a_process.py")


def run(folder):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_a_second_process_compiles_nothing(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert first["compiled"] > 0
    assert first["from_disk"] == 0
    assert second["compiled"] == 0
    assert second["from_disk"] == first["compiled"]
    np.testing.assert_array_equal(first["losses"], second["losses"])


def test_the_programs_of_one_point_serve_every_point(tiny, dataset):
    """Whatever the coefficients, and however many members they mix."""

    def moved(seed):
        generator = np.random.default_rng(seed)
        return jax.tree.map(lambda leaf: np.float32(leaf + 0.05 * generator.normal(size=leaf.shape)), tiny.params)

    region = from_params(tiny.model, tiny.params, {f"m{n}": moved(n) for n in range(4)})
    evaluate(region, sampling.centroid(4), dataset)
    asked = []
    listener = lambda event, **_: asked.append(event) if event.endswith("compile_requests_use_cache") else None  # noqa: E731
    monitoring.register_event_listener(listener)
    try:
        evaluate(region, np.concatenate([np.eye(4), sampling.convex_hull(np.random.default_rng(0), 3, 4)]), dataset)
        assert asked == []
        jax.jit(lambda value: value + 3)(1)
        assert len(asked) == 1  # the event is still what it was
    finally:
        monitoring.unregister_event_listener(listener)
