"""Does the whole story hold at laptop size? The demo study as an experiment.

Command:  python -m experiments.demo --out=runs/demo          (the same as `make demo`)
Hardware: two CPU cores, 8 minutes; a GPU is used when JAX sees one
Expect:   see README.md beside this file
"""

from absl import app, flags

from wsr.cli import demo

demo.define(flags.FLAGS)


def main(argv: list[str]) -> None:
    """Runs the demo study."""
    demo.run(flags.FLAGS, argv[1:])


if __name__ == "__main__":
    app.run(main)
