"""Which checkpoint a model was fine-tuned from; tries those available without a network."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from wsr.errors import WsrError
from wsr.exchange.member import read_member
from wsr.models import Checkpoint, load
from wsr.models.huggingface.config import read_json
from wsr.models.registry import checkpoints
from wsr.runtime import assets
from wsr.runtime.model_folder import transformer_folder
from wsr.store import Store


def likeliest_base(folder: Path, stores: Iterable[Path] = ()) -> str | None:
    """Returns a description of the closest base of a model, or None if no base fits.

    Tries the bases of ``stores``, the named checkpoints on this machine, and the folder named in the model's config.

    Args:
      folder: the model.
      stores: stores whose bases are tried.
    """
    found = []
    for name, open_base in _candidates(folder, stores):
        try:
            kinship = read_member(folder, open_base()).kinship
        except Exception:  # other shapes, or not readable, for whatever reason: not its base
            continue
        if kinship.same_base:
            found.append((kinship.cosine, -kinship.relative_distance, f"{name} ({kinship})"))
    return max(found)[2] if found else None


def stores_beside(path: Path) -> list[Path]:
    """Returns the other stores in the folder that contains the store at ``path``.

    Args:
      path: a store.
    """
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
        named = read_json(transformer_folder(folder) / "config.json").get("_name_or_path")
    except WsrError:
        return
    # Only a path: a hub name would need the network.
    if isinstance(named, str) and (Path(named) / "config.json").is_file() and Path(named).resolve() != folder.resolve():
        yield repr(named), partial(load, named)


def _base_of_store(path: Path) -> Checkpoint:
    store = Store.open(path)
    # No tokenizer: it may be missing, and if shapes and weights agree the vocabularies hardly differ.
    return Checkpoint(store.model, store.base(), None)
