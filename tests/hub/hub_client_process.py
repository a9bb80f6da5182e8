"""Reads datasets from the hub at ``HF_ENDPOINT``: one request a line of standard input, one answer a line of output.

A process of its own, because the libraries read the address of the hub when they are imported.
"""

import json
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import jax
import jax.numpy as jnp

import wsr
from wsr.data import hub
from wsr.data.table import find, register
from wsr.errors import WsrError
from wsr.runtime import hub_client

PROCESSOR = wsr.load("tiny").processor
USUAL = hub_client.PATIENCE, hub_client.SILENCE, hub.PAUSES


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns what became of a request, and how long it took."""
    hub_client.PATIENCE, hub_client.SILENCE, hub.PAUSES = request.get("patience") or USUAL
    start = time.monotonic()
    try:
        said = _answer(request)
    except WsrError as error:
        said = {"error": str(error)}
    return said | {"seconds": time.monotonic() - start, "cache": _cache()}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if "merge" in request:
        with redirect_stdout(sys.stderr):  # answers alone go to standard output
            wsr.merge(request["merge"], wsr.merging.Uniform(), to=request["to"])
        return {"written": sorted(path.name for path in Path(request["to"]).iterdir())}
    if "model" in request:
        checkpoint = wsr.load(request["model"])
        tokens = checkpoint.processor("the kla label number 1")["input_ids"]
        arrays = jax.tree.leaves(checkpoint.params)
        return {"tokens": tokens, "architecture": checkpoint.model.name, "total": sum(map(jnp.size, arrays))}
    return _dataset(request["name"], newest="newest" in request) if "name" in request else _hub(**request["hub"])


def _dataset(name: str, *, newest: bool) -> dict[str, Any]:
    spec = find(name)
    if newest:  # as registered, but at the newest commit of its repository
        name = f"{name}_newest"
        spec = replace(spec, name=name, source=replace(spec.source, revision=None))
        register(spec)
    read = spec.source.read()
    dataset = wsr.load_dataset(name, PROCESSOR)
    labels = {split: sorted(set(part.labels.tolist())) for split, part in dataset.splits.items()}
    return {
        "classes": dataset.classes,
        "label_names": dataset.label_names,
        "rows": {role: len(records) for role, records in read.items()},
        "columns": {role: list(records.columns) for role, records in read.items()},
        "origins": {role: records.origin for role, records in read.items()},
        "labels": labels,
        "notes": dataset.notes,
    }


def _hub(**arguments: Any) -> dict[str, Any]:
    read = hub.Hub(**arguments).read()
    return {"rows": {role: len(records) for role, records in read.items()}, "notes": read["train"].notes}


def _cache() -> list[str]:
    """Returns the names of datasets that are kept whole."""
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("dataset_info.json"))


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
