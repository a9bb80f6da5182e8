"""The benchmark of imports and exports, in its small form: the verbs as processes, and what they make."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.checkpoints import SMALL, measure
from wsr.store import Store


@pytest.mark.long
def test_four_models_in_and_their_centroid_out(tmp_path):
    result = measure(4, SMALL, folder=tmp_path)
    peaks = {name: value for name, value in result.figures.items() if "peak" in name}
    assert len(peaks) == 4
    # Python, JAX and what they import, and a few models of 20 MB: 4 GiB is for models 25 times as large.
    assert all(0.1 < peak < 1.5 for peak in peaks.values()), peaks
    assert Store.open(tmp_path / "store").names() == ["m00", "m01", "m02", "m03"]
    centroid = load_file(tmp_path / "centroid" / "model.safetensors")
    members = [load_file(tmp_path / f"m{number:02}" / "model.safetensors") for number in range(4)]
    assert centroid.keys() == members[0].keys()
    for name, tensor in centroid.items():
        expected = np.mean([member[name] for member in members], axis=0, dtype=np.float64)
        np.testing.assert_allclose(tensor, expected, atol=1e-6)
    similarity = np.loadtxt(tmp_path / "map" / "similarity.csv", delimiter=",", skiprows=1)
    assert similarity.shape == (4, 4)
    assert np.diag(similarity) == pytest.approx(1)
