"""Eight devices against one: the same losses, and each device with work of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("evaluation_in_a_process.py")
TRAINING = Path(__file__).with_name("training_in_a_process.py")
MESHES = ["1x1", "8x1", "4x2", "1x8"]


def on_eight_devices(*words: object) -> str:
    """Runs a script in a process with eight devices and returns what it printed."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    paths = [str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")]  # scripts read benchmarks too
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_meshes_of_eight_devices_give_the_losses_of_one():
    """Five points and an odd number of steps: neither is a multiple of a mesh's axes."""
    found = json.loads(on_eight_devices(SCRIPT, *MESHES).splitlines()[-1])
    one, *several = (np.array(losses) for losses in found["losses"])
    assert one.shape == (5, 40)
    for losses in several:
        np.testing.assert_allclose(losses, one, atol=1e-5)
    # Points together, of them on one device, devices.
    assert found["placed"] == {"1x1": [1, 1, 1], "8x1": [8, 1, 8], "4x2": [4, 1, 8], "1x8": [1, 1, 8]}
    # Each device fits the probes of its points.
    assert found["probed"] == {"1x1": [1, 1, 1], "8x1": [8, 1, 8], "4x2": [4, 1, 8], "1x8": [1, 1, 1]}
    # The base and each member travel to the devices once, however many hold a copy.
    assert found["uploaded"] == {name: [1.0] for name in MESHES}
    assert found["default"] == [1, 1, 1]  # virtual devices of a CPU are no more than the CPU


@pytest.mark.long
def test_members_are_trained_on_all_devices_and_come_out_as_on_one(tmp_path):
    """Five members, three at a time on three devices; the last group is filled up."""
    on_eight_devices(TRAINING, tmp_path / "found.npz", 1, 3)
    found = np.load(tmp_path / "found.npz")
    assert [int(found[f"{count} chunk"]) for count in (1, 3)] == [1, 3]
    assert found["used"].tolist() == [1] * 5 + [3] * 2
    one = [name for name in found.files if name.startswith("1 ") and name != "1 chunk"]
    assert len(one) > 5 * 10
    for name in one:
        if not name.endswith("attention/key/bias"):  # it does not change the loss: its gradient is rounding error
            np.testing.assert_allclose(found[name.replace("1 ", "3 ", 1)], found[name], atol=1e-5, err_msg=name)
