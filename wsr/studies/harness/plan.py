"""Keeps the plan of a run beside its results, so that only the same plan resumes the run."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.runtime import strict_json
from wsr.runtime.atomic import write_atomically


def same_plan_or_refuse(folder: Path, plan: Any) -> None:
    """Writes a plan into the folder of a run or, if the folder has one, compares the two.

    A value that the plan in the folder does not name, as an earlier version wrote it, may be 0, False or empty here.

    Args:
      folder: the folder of the run; created if it does not exist.
      plan: a dataclass or a mapping of dataclasses.

    Raises:
      WsrError: the plans differ; the message names the values that do. Or the plan in the folder is not JSON.
    """
    file = folder / "plan.json"
    wanted = json.loads(json.dumps(plan, default=dataclasses.asdict))
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, (json.dumps(wanted, indent=1) + "\n").encode())
        return
    try:
        found = strict_json.parse(file.read_text(encoding="utf-8"))
    except ValueError:
        raise WsrError(f"{file} is not JSON; remove {folder} or choose another folder with --out") from None
    differing = sorted(_differing(_flat(wanted), _flat(found)))
    if differing:
        raise WsrError(
            f"{folder} holds a run of another plan (differing: {', '.join(differing)}); "
            "choose another folder with --out, or remove this one"
        )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{path}.{key}" if path else str(key))
    return flat


def _differing(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> set[str]:
    named = {key for key, value in wanted.items() if key in found or value}
    return {key for key in named | found.keys() if wanted.get(key, _ABSENT) != found.get(key, _ABSENT)}


_ABSENT = object()
