"""Writes what `make check-explorer` looks at, and checks the command that the browser copied.

Command:  python tests/browser/explorer_pages.py FOLDER            pages, and exact scores of 50 points
          python tests/browser/explorer_pages.py FOLDER command    runs FOLDER/command.txt and compares the weights
"""

import json
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np

import wsr
from wsr.cli import main as wsr_command
from wsr.data.metrics import METRICS, REGRESSION_METRICS, score
from wsr.engine.hull_polynomial import draw_faces

POINTS = 50
DATASETS = ("made_up_a2", "made_up_c1")
HOSTILE = ("<script>alert(1)</script>", 'o\'brien "&amp;" x,y', "</script><img src=x onerror=alert(1)>")


def main(folder: Path) -> None:
    """Trains six members, writes three pages, and scores random points exactly."""
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "store"
    if not store.exists():
        _run(
            f"train --store={store} --base=tiny --datasets=made_up_a1,made_up_a2,made_up_b1 --seeds=2 --epochs=6 "
            "--learning_rate=0.01 --max_length=48"
        )
    page = folder / "explorer.html"
    _run(f"explore --store={store} --on={','.join(DATASETS)} --max_length=48 --out={page}")
    region = wsr.open(store)
    _score_points(page, region)
    many = wsr.made_up_region(10)
    wsr.explore(many, _dataset("made_up_c1"), folder / "many.html", points=98)  # part of a lattice of degree 2
    _score_points(folder / "many.html", many)
    (folder / "metrics.json").write_text(json.dumps(_metrics()))
    two = region.where(lambda member: member.name in region.names[:2])
    wsr.explore(two, _dataset("made_up_c1"), folder / "two.html", points=80)
    params = {name: member.load() for name, member in zip(HOSTILE, region.members, strict=False)}
    hostile = wsr.from_params(region.model, region.base, params)
    wsr.explore(hostile, _dataset("made_up_a2"), folder / "hostile.html", points=80)


def check_command(folder: Path) -> None:
    """Runs the copied command; the model must be the point of the copied link."""
    from safetensors.numpy import load_file

    from wsr.geometry.trees import flatten
    from wsr.models import load

    copied = json.loads((folder / "command.json").read_text())
    shutil.rmtree(folder / "merged", ignore_errors=True)
    program, *words = shlex.split(copied["command"])
    assert program == "wsr", copied
    words = [f"--to={folder / 'merged'}" if word.startswith("--to=") else word for word in words]
    assert wsr_command(words) == 0, words
    region = wsr.open(folder / "store")
    point = np.array([copied["point"].get(name, 0.0) for name in region.names])
    wanted, found = flatten(region.params(point)), flatten(load(str(folder / "merged")).params)
    assert load_file(folder / "merged" / "model.safetensors")
    for path, leaf in wanted.items():
        np.testing.assert_allclose(found[path], leaf, atol=1e-5, err_msg=path)
    print(f"the copied command writes the model of the point: {len(wanted)} arrays compared")


def _score_points(page: Path, region: wsr.Region) -> None:
    """Writes random points of a region and their exact scores on the datasets of a page."""
    content = json.loads(page.read_text("utf-8").split('id="data">')[1].split("</script>")[0])
    rows = draw_faces(np.random.default_rng(20), POINTS, len(region)).round(6)
    rows /= rows.sum(axis=1, keepdims=True)
    points = [{"at": {n: c for n, c in zip(region.names, row, strict=True) if c}, "exact": {}} for row in rows.tolist()]
    for own in content["datasets"]:
        dataset = _dataset(own["name"])
        found = wsr.evaluate(region, rows, dataset, protocol=wsr.Protocol(inverse_l2=own["inverse_l2"]))
        for point, loss, value in zip(points, found.generalised_loss, found.scores, strict=True):
            point["exact"][own["name"]] = [float(loss), float(value)]
    (page.parent / f"{page.stem}-points.json").write_text(json.dumps(points))


def _metrics() -> list[dict]:
    """Labels and predictions at random, and what scikit-learn and SciPy make of them."""
    draw = np.random.default_rng(5)
    cases = []
    for metric in METRICS:
        real = metric in REGRESSION_METRICS
        classes = 2 if metric == "f1" else 4
        for texts in (5, 40):
            two = [draw.normal(size=texts).round(1) if real else draw.integers(classes, size=texts) for _ in range(2)]
            cases.append({"metric": metric, "lists": [own.tolist() for own in two], "value": score(metric, *two)})
    return cases


def _dataset(name: str) -> wsr.Dataset:
    return wsr.load_dataset(
        name, wsr.load("tiny").processor, max_length=48, sizes={"probe": 300, "test": 300}, at_most=True
    )


def _run(words: str) -> None:
    assert wsr_command(shlex.split(words)) == 0, words


if __name__ == "__main__":
    check_command(Path(sys.argv[1])) if sys.argv[2:] == ["command"] else main(Path(sys.argv[1]))
