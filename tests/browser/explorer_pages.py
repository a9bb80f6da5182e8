"""Writes what `make check-explorer` looks at, and checks the command that the browser copied.

Command:  python tests/browser/explorer_pages.py FOLDER            pages, and exact scores of 50 points
          python tests/browser/explorer_pages.py FOLDER command    runs FOLDER/command.txt and compares the weights
"""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

import wsr
from wsr.cli import main as wsr_command
from wsr.data.choices import load_choices
from wsr.data.metrics import METRICS, REGRESSION_METRICS, score
from wsr.data.texts import load_texts
from wsr.engine.hull_polynomial import draw_faces
from wsr.engine.objective import evaluate_on
from wsr.region.exposure import Target

POINTS = 50
DATASETS = ("made_up_a2", "made_up_c1")
HOSTILE = ("<script>alert(1)</script>", 'o\'brien "&amp;" x,y', "</script><img src=x onerror=alert(1)>")


def main(folder: Path) -> None:
    """Trains six members, writes the pages, and scores random points exactly."""
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
    _score_points(page, region, {name: _dataset(name) for name in DATASETS})
    many = wsr.made_up_region(10)
    wsr.explore(many, _dataset("made_up_c1"), folder / "many.html", points=98)  # part of a lattice of degree 2
    _score_points(folder / "many.html", many, {"made_up_c1": _dataset("made_up_c1")})
    decoders, targets = _decoders(), _for_decoders(folder)
    wsr.explore(decoders, list(targets.values()), folder / "decoders.html", points=85)
    _score_points(folder / "decoders.html", decoders, targets)
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


def _score_points(page: Path, region: wsr.Region, targets: Mapping[str, Target]) -> None:
    """Writes random points of a region and their exact scores on the datasets of a page."""
    content = json.loads(page.read_text("utf-8").split('id="data">')[1].split("</script>")[0])
    rows = draw_faces(np.random.default_rng(20), POINTS, len(region)).round(6)
    rows /= rows.sum(axis=1, keepdims=True)
    points = [{"at": {n: c for n, c in zip(region.names, row, strict=True) if c}, "exact": {}} for row in rows.tolist()]
    for own in content["datasets"]:
        found = evaluate_on(region, rows, targets[own["name"]], protocol=wsr.Protocol(inverse_l2=own["inverse_l2"]))
        losses, scores, *_ = found.values.values()
        for point, loss, value in zip(points, losses, scores, strict=True):
            point["exact"][own["name"]] = [float(loss), float(value)]
    (page.parent / f"{page.stem}-points.json").write_text(json.dumps(points))


def _decoders() -> wsr.Region:
    """Three GPT-2s with random weights near one base, which know the tiny checkpoint's vocabulary."""
    model = wsr.models.build("gpt2", {**wsr.models.architectures()["gpt2"].example, "vocab_size": 108})
    draw = np.random.default_rng(0)

    def moved(leaf: np.ndarray, by: float) -> np.ndarray:
        return (leaf + by * draw.normal(size=leaf.shape)).astype(np.float32)

    base = jax.tree.map(lambda leaf: moved(leaf, 0.2), model.init(jax.random.key(0)))
    members = {f"m{number}": jax.tree.map(lambda leaf: moved(leaf, 0.1), base) for number in range(3)}
    return wsr.from_params(model, base, members)


def _for_decoders(folder: Path) -> dict[str, Target]:
    """Plain texts, and questions with two and three answers."""
    processor, draw, words = wsr.load("tiny").processor, np.random.default_rng(1), "abcdefgh"
    rows = [
        {"question": " ".join(draw.choice([*words], 3)), "choices": [*draw.choice([*words], 2 + row % 2, False)]}
        for row in range(30)
    ]
    lines = [json.dumps({**row, "label": int(draw.integers(2))}) for row in rows]
    (folder / "questions.jsonl").write_text("\n".join(lines))
    texts = load_texts("made_up_a1", processor, max_length=24)
    return {texts.name: texts, "questions": load_choices(folder / "questions.jsonl", processor, max_length=24)}


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
