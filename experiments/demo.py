"""Does the whole story hold at laptop size? The demo study as an experiment.

Command:  python -m experiments.demo --out=runs/demo          (the same as `make demo`)
Hardware: two CPU cores, 8 minutes; a GPU is used when JAX sees one
Expect:   see README.md beside this file
"""

import dataclasses
import sys

from wsr.cli import demo
from wsr.cli.program import call

PAGE = dataclasses.replace(
    demo.PAGE,
    name="demo",
    usage="python -m experiments.demo [options]",
    examples=("python -m experiments.demo --out=runs/demo",),
)


if __name__ == "__main__":
    sys.exit(call(PAGE, demo.run, sys.argv[1:]))
