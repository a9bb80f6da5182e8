"""Writes the pages of atlases that `make check-atlas` looks at: a small one, and one of ten thousand models.

Command:  python tests/browser/atlas_pages.py FOLDER
"""

import shutil
import sys
from pathlib import Path

import numpy as np

import wsr
from wsr.report.atlas.page import write_atlas_page
from wsr.store.atlas_file import AtlasEntry

MANY = 10_000
HOSTILE = ("<script>alert(1)</script>", 'o\'brien "&amp;" x,y', "</script><img src=x onerror=alert(1)>")


def main(folder: Path) -> None:
    """Writes both pages; the models are random directions around those of datasets."""
    for name, models, datasets in (("atlas", 60, 4), ("many", MANY, 40)):
        shutil.rmtree(folder / name, ignore_errors=True)
        atlas = wsr.atlas(wsr.Store.create_for(folder / name, wsr.load("tiny")))
        draw = np.random.default_rng(0)
        centres = draw.normal(size=(datasets, atlas.file.size))
        for number in range(models):
            copied = number % 20 == 1  # of the model before
            if not copied:
                label = int(draw.integers(datasets))
                row = (centres[label] + 1.5 * draw.normal(size=atlas.file.size)).astype(np.float32)
            own = HOSTILE[number] if number < len(HOSTILE) else f"dataset{label}-full-s{number}"
            atlas.file.add(AtlasEntry(own, f"runs/models/{number}", f"dataset{label}", str(number - copied), 1.0), row)
        middle = str(models // 2)
        atlas.file.keep_kin({(middle, str(other)): f"sibling {other}" for other in range(models)})
        write_atlas_page(atlas, folder / f"{name}.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
