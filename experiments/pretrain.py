"""Pretrains a small encoder by masked language modelling, for studies that need two checkpoints of one architecture.

Command:  python -m experiments.pretrain --preset=packaged --seed=0 --out=runs/packaged/pretrained-0
Cost:     minutes on two CPU cores; see README.md beside this file
Expect:   a folder in the Hugging Face format; an encoder that read a few megabytes is a BERT in form, not in strength
"""

import dataclasses
import sys
from pathlib import Path

from absl import app, flags, logging

from wsr.errors import WsrError
from wsr.studies.harness.pretrained import PLANS, pretrained
from wsr.training.pretrain import Pretraining

PRESET = flags.DEFINE_enum("preset", "packaged", list(PLANS), "Corpus, shape and recipe.")
SEED = flags.DEFINE_integer("seed", 0, "Of initial parameters, order and masks.")
OUT = flags.DEFINE_string("out", None, "Folder of the checkpoint; by default runs/PRESET/pretrained-SEED.")
for _field in dataclasses.fields(Pretraining):
    _define = flags.DEFINE_integer if _field.type is int else flags.DEFINE_float
    _define(_field.name, None, "By default the preset's.")


def main(argv: list[str]) -> None:
    """Pretrains, or says that it was done before."""
    logging.set_verbosity(logging.WARNING)
    corpus, plan = PLANS[PRESET.value]
    given = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(plan)}
    plan = dataclasses.replace(plan, **{name: value for name, value in given.items() if value is not None})
    folder = Path(OUT.value or f"runs/{PRESET.value}/pretrained-{SEED.value}")
    try:
        if len(argv) > 1:
            raise WsrError(f"unknown argument {argv[1]!r}; values are given as --flag=value")
        there = folder.exists()
        pretrained(folder, corpus, plan, seed=SEED.value)
        print(f"{'already there' if there else 'checkpoint'}: {folder}; open it with --base={folder}")
    except WsrError as error:
        sys.exit(f"pretrain: error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from where the state was last kept")


if __name__ == "__main__":
    app.run(main)
