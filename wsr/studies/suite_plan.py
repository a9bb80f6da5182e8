"""What a suite would fetch and score, in words: the dry run."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from typing import Literal

from wsr.data.hub import Hub
from wsr.errors import WsrError
from wsr.models.huggingface.hub import FILES
from wsr.runtime.hub_client import watched
from wsr.studies.merged_models import Effort
from wsr.studies.merging_benchmarks import left_out, points_of
from wsr.studies.suites import Suite, Task

DATA_FILES = ("*.parquet", "*.arrow", "*.jsonl", "*.csv", "*.zip")


def planned(suite: Suite, tasks: Sequence[Task], names: Sequence[str], effort: Effort) -> str:
    """Returns what would be fetched, how large it is, and how many points would be scored.

    Args:
      suite: the suite.
      tasks: its tasks, or some of them.
      names: the methods.
      effort: how many options of each method are tried.
    """
    models = [(suite.base, suite.revision), *((task.member, None) for task in tasks)]
    data = list(dict.fromkeys(_place(task) for task in tasks))
    told: dict[str, str] = {}
    silence = ""
    try:
        for name, revision in models:
            told[name] = _gb(size_on_hub("model", name, revision, FILES))
        for path, config, revision in data:
            patterns = tuple(f"{config}/{pattern}" for pattern in DATA_FILES) if config else DATA_FILES
            told[_spoken(path, config)] = _gb(size_on_hub("dataset", path, revision, patterns))
    except WsrError as error:
        silence = f"{error}; sizes that are not known are left out"
    validation, test = points_of(len(tasks), names, effort)
    lines = [
        suite.title,
        *([silence] if silence else []),
        "models to fetch, unless they are in the hub's cache:",
        *(_line(f"{name}{f' at {revision[:12]}' if revision else ''}", told.get(name)) for name, revision in models),
        "datasets to fetch:",
        *(_line(_spoken(path, config), told.get(_spoken(path, config))) for path, config, _ in data),
        f"methods: {len(names)} ({', '.join(names)})",
        f"left out: {', '.join(left_out(suite))}",
        f"points: {validation} on validation data, {test} on test data; a point is one model on one task",
        f"disk for the store and the merges: {_gb((1 + len(tasks) + len(names)) * 4 * suite.parameters)}, at "
        f"{suite.parameters:,} parameters of 4 bytes a model",
    ]
    return "\n".join(lines)


def size_on_hub(kind: Literal["model", "dataset"], name: str, revision: str | None, patterns: Iterable[str]) -> int:
    """Returns the bytes of the files of a repository that match a pattern.

    Args:
      kind: of the repository.
      name: of the repository.
      revision: a commit; None for the newest.
      patterns: of paths in the repository.

    Raises:
      WsrError: if the hub does not answer, or has no such repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    wanted = tuple(patterns)
    try:
        with watched():
            listed = list(HfApi().list_repo_tree(name, recursive=True, revision=revision, repo_type=kind))
    except Exception as error:  # the client and its transport raise errors of many kinds
        raise WsrError(f"the hub gives no list of the files of {name}: {' '.join(str(error).split())[:200]}") from error
    files = [own for own in listed if isinstance(own, RepoFile)]
    return sum(own.size for own in files if any(fnmatch(own.path, pattern) for pattern in wanted))


def _place(task: Task) -> tuple[str, str | None, str | None]:
    source = task.data.source
    assert isinstance(source, Hub)
    return source.path, source.config, source.revision


def _spoken(path: str, config: str | None) -> str:
    return f"{path}:{config}" if config else path


def _line(name: str, size: str | None) -> str:
    return f"  {name}: {size}" if size else f"  {name}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
