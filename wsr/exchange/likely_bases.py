"""Which checkpoint was a model fine-tuned from? Those that can be looked at without a network are tried."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from wsr.errors import WsrError
from wsr.exchange.member import read_member
from wsr.models import Checkpoint, load
from wsr.models.huggingface.config import read_json
from wsr.models.registry import checkpoints
from wsr.runtime import assets
from wsr.store import Store


def likeliest_base(folder: Path, stores: Iterable[Path] = ()) -> str | None:
    """Returns, in words, the nearest of the bases that the model in ``folder`` may have, or None.

    Looked at are the bases of ``stores``, the checkpoints that have a name and are on this machine, and the folder
    that the model's config names.
    """
    found = []
    for name, open_base in _candidates(folder, stores):
        try:
            kinship = read_member(folder, open_base()).kinship
        except WsrError:  # of another form, or not readable: not its base
            continue
        if kinship.same_base:
            found.append((kinship.cosine, -kinship.relative_distance, f"{name} ({kinship})"))
    return max(found)[2] if found else None


def stores_beside(path: Path) -> list[Path]:
    """Returns the stores that lie in one folder with the store at ``path``, without that one."""
    folder = path.expanduser().resolve()
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    return sorted(other for other in beside if other != folder and (other / "base").is_dir())


def _candidates(folder: Path, stores: Iterable[Path]) -> Iterator[tuple[str, Callable[[], Checkpoint]]]:
    for path in stores:
        yield f"the base of {path}", partial(_base_of_store, path)
    for name in checkpoints():
        if name not in assets.ASSETS or assets.is_there(name):
            yield repr(name), partial(load, name)
    try:
        named = read_json(folder / "config.json").get("_name_or_path")
    except WsrError:
        return
    # A path only: a name of the hub would need the network.
    if isinstance(named, str) and (Path(named) / "config.json").is_file() and Path(named).resolve() != folder.resolve():
        yield repr(named), partial(load, named)


def _base_of_store(path: Path) -> Checkpoint:
    store = Store.open(path)
    # No tokenizer: it may be anywhere, and where shapes and weights agree the vocabulary hardly differs.
    return Checkpoint(store.model, store.base(), None)
