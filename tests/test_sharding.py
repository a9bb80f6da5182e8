"""Eight devices against one: the same losses, and each device with work of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).with_name("evaluation_in_a_process.py")
MESHES = ["1x1", "8x1", "4x2", "1x8"]


def test_meshes_of_eight_devices_give_the_losses_of_one():
    """Five points and an odd number of steps: neither is a multiple of a mesh's axes."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, SCRIPT, *MESHES], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    one, *several = (np.array(losses) for losses in found["losses"])
    assert one.shape == (5, 40)
    for losses in several:
        np.testing.assert_allclose(losses, one, atol=1e-5)
    # Points together, of them on one device, devices.
    assert found["placed"] == {"1x1": [1, 1, 1], "8x1": [8, 1, 8], "4x2": [4, 1, 8], "1x8": [1, 1, 8]}
    assert found["default"] == [1, 1]  # virtual devices of a CPU are no more than the CPU
