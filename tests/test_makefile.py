"""What make installs by itself."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def chosen_extras(place: Path, driver: str | None) -> str:
    """Returns the extras that make chooses where ``nvidia-smi`` reports a driver; None: there is no such program."""
    if driver is not None:
        fake = place / "nvidia-smi"
        fake.write_text(f"#!/bin/sh\necho {driver}\necho {driver}\n")  # a line for each GPU
        fake.chmod(0o755)
    environment = {"PATH": f"{place}:{os.defpath}"}
    command = ["make", "--silent", f"--directory={ROOT}", "--eval=chosen: ; @echo '[$(EXTRAS)]'", "chosen"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


# CUDA 13 needs a driver of the series 580 or newer, CUDA 12 one of 525 or newer.
@pytest.mark.parametrize(
    ("driver", "extras"), [("580.65.06", "[cuda]"), ("610.10", "[cuda]"), ("535.183.01", "[cuda12]"), (None, "[]")]
)
def test_jax_for_the_installed_driver_is_chosen(tmp_path, driver, extras):
    assert chosen_extras(tmp_path, driver) == extras
