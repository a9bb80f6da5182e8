"""Runs every study with --preset=paper from an empty cache, against a hub on this machine.

The hub (``hub_server.py``) has the paper's 36 datasets with a few hundred invented rows each, and a tiny roberta-base.
A study keeps the names of the preset "paper" (datasets, targets, pairs, bases) and has the sizes of "smoke". All
studies share members in one process, so that each member is trained once and each program compiled once.
At the end, one study reads what TensorFlow Datasets has prepared.

Command:  make paper-smoke          (the same as python tests/hub/paper_smoke.py [STUDY ...])
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
STUDYING = "WSR_PAPER_SMOKE"
"""Set in the process that runs the studies. Another one serves the hub: libraries read its address when imported."""

SIZES = {
    "finetune_texts": 192,
    "probe_texts": 60,
    "validation_texts": 20,
    "test_texts": 60,
    "max_length": 16,  # every text is longer, so all datasets have batches of one shape and share compiled programs
    "learning_rate": 5e-3,
    "head_learning_rate": 5e-3,
    "batch_size": 32,
    "epochs": 8.0,
}
"""Sizes of the population, in place of the paper's."""
FOUR = {"datasets": ("mnli", "esnli", "sst2", "imdb")}
FEWER: dict[str, dict[str, Any]] = {
    # These would train members of all 36 datasets for themselves alone.
    "shared_seed": FOUR,
    "two_bases": FOUR,
    "landscape": FOUR,
    # Each training on a target of its own compiles a program.
    "centroid_start": {"runs": 1},
    "few_shot": {"runs": 1, "sizes": (16,), "starts_on": ("mnli", "rte")},
    "plain_base": {"runs": 1, "sizes": (16,), "averaged": FOUR["datasets"], "starts_on": ("mnli", "rte")},
    # It trains each target from about forty starts in two modes.
    "which_start": {"runs": 1, "targets": ("mnli", "rte")},
}
"""Values of single studies."""
CATALOGUE = "same_dataset_clusters"
"""The study that reads the catalogue of TensorFlow Datasets."""
FEWEST_LEARNED = 0.9
"""Least share of members that learn, of those with at least half of the texts. Words decide the invented labels, but
some datasets have few texts for each of many classes: 96 % learn."""


def serve(wanted: list[str]) -> int:
    """Serves the hub to a process with an empty cache that runs the studies, and returns its exit status."""
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "hub")]
    from catalogue import prepare
    from hub_model import roberta
    from hub_repositories import isear, repositories
    from hub_server import LocalHub

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_", "WSR_"))}
    others = ("nyu-mll/roberta-base-1B-1", "sentence-transformers/nli-roberta-base-v2")
    models = (roberta(), *(roberta(name, seed) for seed, name in enumerate(others, start=1)))
    with (
        tempfile.TemporaryDirectory(prefix="paper-smoke-") as folder,
        LocalHub(repositories(), {model.name: model for model in models}).running() as hub,
    ):
        (Path(folder) / "isear.csv").write_text(isear(), encoding="utf-8")
        prepare(Path(folder) / "catalogue")
        environment = kept | {
            STUDYING: "1",
            "HF_ENDPOINT": hub.address,
            "HF_HOME": f"{folder}/hub",
            "TFDS_DATA_DIR": f"{folder}/catalogue",
            "WSR_CACHE": f"{folder}/wsr",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_VERBOSITY": "error",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
            "no_proxy": "127.0.0.1",
        }
        command = [sys.executable, __file__, *wanted]
        return subprocess.run(command, env=environment, cwd=folder, check=False).returncode


def run_studies(wanted: list[str]) -> int:
    """Runs the studies in the working folder, and returns 1 if one of them failed."""
    studies = wanted or sorted(
        path.stem for path in (ROOT / "experiments").glob("*.py") if "    launch(main, " in path.read_text()
    )
    from wsr.studies.harness import clustered

    clustered.CLUSTERED_RESAMPLES = 5  # intervals of clusterings are most of what small studies compute
    folder = Path.cwd()
    failed = [study for study in studies if not _told(study, folder)]
    print(f"{len(studies) - len(failed)} of {len(studies)} studies ran", flush=True)
    if wanted:
        return int(bool(failed))
    both = _told_members(folder / "shelf"), _told(CATALOGUE, folder, catalogue=True)
    return int(bool(failed) or not all(both))


def _told(study: str, folder: Path, *, catalogue: bool = False) -> bool:
    """Runs a study, says in a line how it went, and returns whether it ended well."""
    start, used = time.monotonic(), time.process_time()
    out, label = (folder / "catalogue_run", f"{study} --tfds") if catalogue else (folder / study, study)
    try:
        with (folder / f"{study}.log").open("w", encoding="utf-8") as log, redirect_stdout(log):
            module = importlib.import_module(f"experiments.{study}")
            for more in (["--dry_run"], []):
                _run(study, module, [*_flags(study, module, folder, out, catalogue=catalogue), *more])
        document = json.loads((out / "document.json").read_text(encoding="utf-8"))
    except Exception as error:
        print(f"{label}: FAILED at {_place(error)}: {type(error).__name__}: {error}", flush=True)
        return False
    verdicts = ", ".join(section["verdict"] for section in document["sections"])
    took, used = time.monotonic() - start, time.process_time() - used
    print(f"{label}: {took:.0f} s, {used:.0f} s of processors; {verdicts}", flush=True)
    return True


def _run(study: str, module: ModuleType, words: list[str]) -> None:
    from experiments.launcher import run
    from wsr.runtime.preemption import STATUS

    status = run(study, module.__doc__ or "", module.main, module.SETTINGS, module.work, words)
    if status in (130, STATUS):  # interrupted, or asked to end
        sys.exit(status)
    if status:
        raise RuntimeError(f"exit status {status}")


def _flags(study: str, module: ModuleType, folder: Path, out: Path, *, catalogue: bool) -> list[str]:
    values: dict[str, Any] = dict(SIZES)
    if catalogue:
        from catalogue import entries

        values |= {"tfds": True, "datasets": tuple(entries())}
    sizes = module.SETTINGS["smoke"]
    for field in dataclasses.fields(sizes):
        value = getattr(sizes, field.name)
        some = value[:1] if isinstance(value, tuple) else (value,)
        if some and not isinstance(some[0], str):
            values[field.name] = value
    values |= FEWER.get(study, {})
    words = [f"--{name}={','.join(map(str, own)) if isinstance(own, tuple) else own}" for name, own in values.items()]
    return ["--preset=paper", f"--out={out}", f"--shelf={folder / 'shelf'}", "--debug", *words]


def _told_members(shelf: Path) -> bool:
    """Says how many members learned, and returns whether there are some of all 36 datasets and most of them learned."""
    from wsr.data.table import PAPER
    from wsr.region.learned import learned
    from wsr.store import Store

    records = [record for path in sorted((shelf / "stores").iterdir()) for record in Store.open(path).records()]
    missing = sorted(set(PAPER) - {record.dataset for record in records})
    large = [record for record in records if record.size >= SIZES["finetune_texts"] / 2]
    share = sum(map(learned, large)) / len(large)
    print(
        f"{len(records)} members of {36 - len(missing)} of the paper's 36 datasets; of {len(large)} with at least half "
        f"of the texts {100 * share:.0f} % learned; not: "
        + ", ".join(f"{own.name} ({own.metrics['test_score']:.2f})" for own in large if not learned(own))
    )
    if missing:
        print(f"FAILED: no member of {', '.join(missing)}")
    if share < FEWEST_LEARNED:
        print(f"FAILED: expected that {100 * FEWEST_LEARNED:.0f} % learn")
    return not missing and share >= FEWEST_LEARNED


def _place(error: BaseException) -> str:
    """Returns the file and line of the innermost frame of this repository."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(ROOT))]
    own = [frame for frame in frames if ".venv" not in frame.filename]
    return f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno}" if own else "an unknown line"


if __name__ == "__main__":
    sys.exit((run_studies if STUDYING in os.environ else serve)(sys.argv[1:]))
