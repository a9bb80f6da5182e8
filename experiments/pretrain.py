"""Pretrains a small encoder by masked language modelling, for studies that need two checkpoints of one architecture.

Command:  python -m experiments.pretrain --preset=packaged --seed=0 --out=runs/packaged/pretrained-0
Cost:     minutes on two CPU cores; see README.md beside this file
Expect:   a folder in the Hugging Face format; an encoder that read a few megabytes is a BERT in form, not in strength
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from wsr.cli.flags import Flag, Group, Page, Values
from wsr.cli.program import call
from wsr.cli.record_flags import flags_of, overridden
from wsr.studies.harness.pretrained import PLANS, pretrained
from wsr.training.pretrain import Pretraining

PAGE = Page(
    "pretrain",
    "python -m experiments.pretrain [options]",
    "Pretrain a small encoder by masked language modelling.",
    (
        "python -m experiments.pretrain --preset=smoke --out=runs/smoke/pretrained-0",
        "python -m experiments.pretrain --preset=packaged --seed=1",
    ),
    (
        Group(
            "What is pretrained",
            (
                Flag("preset", "Preset of corpus, shape and recipe.", "packaged", allowed=tuple(PLANS)),
                Flag("seed", "Seed of the initial parameters, the order of the texts and the masks.", 0),
            ),
        ),
        Group("Shape and recipe", flags_of(Pretraining, "the preset's")),
        Group(
            "Output",
            (Flag("out", "Folder of the checkpoint.", value="FOLDER", otherwise="runs/PRESET/pretrained-SEED"),),
        ),
    ),
    ("Rerun it after an interruption: it resumes from the state it kept last.",),
)


def main(values: Values, positional: Sequence[str]) -> None:
    """Pretrains, unless the checkpoint exists."""
    corpus, plan = PLANS[values.preset]
    folder = Path(values.out or f"runs/{values.preset}/pretrained-{values.seed}")
    there = folder.exists()
    pretrained(folder, corpus, overridden(plan, values), seed=values.seed)
    print(f"{'it exists already' if there else 'checkpoint'}: {folder}; open it with --base={folder}")


if __name__ == "__main__":
    sys.exit(call(PAGE, main, sys.argv[1:]))
