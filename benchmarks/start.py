"""How long it takes to begin: imports and help, each in a fresh process, beside ``import jax``."""

import subprocess
import sys
from statistics import median

from benchmarks.harness import Mark, Result, side_by_side

REPEATS = 7


def run() -> list[Result]:
    """Times each in turn; bytecode and the files of the packages are in memory from the first round on."""
    seconds = side_by_side(
        {
            "import wsr": lambda: _python("-c", "import wsr"),
            "import jax": lambda: _python("-c", "import jax"),
            "wsr --help": lambda: _python("-m", "wsr.cli", "--help"),
            "from wsr.engine.evaluate import evaluate": lambda: _python(
                "-c", "from wsr.engine.evaluate import evaluate"
            ),
            "from flax import nnx": lambda: _python("-c", "from flax import nnx"),
        },
        repeats=REPEATS,
    )

    def beside_jax(name: str) -> float:
        return median(own / jax for own, jax in zip(seconds[name], seconds["import jax"], strict=True))

    engine = "from wsr.engine.evaluate import evaluate"
    return [
        Result(
            name="start",
            work="one fresh process",
            ours="import wsr",
            seconds=seconds,
            figures={f"{name} / import jax": beside_jax(name) for name in (engine, "from flax import nnx")},
            marks=(
                Mark("import wsr / import jax", beside_jax("import wsr"), 1.3, at_most=True),
                Mark("wsr --help / import jax", beside_jax("wsr --help"), 1.0, at_most=True),
            ),
        )
    ]


def _python(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
