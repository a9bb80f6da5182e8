"""Reads the parameters in an Orbax checkpoint of another program, in host memory, on whatever devices it was saved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wsr.errors import WsrError


def read_orbax(place: Path) -> dict[str, np.ndarray]:
    """Returns the parameters of an Orbax tree by path.

    Of a training state, only ``params`` is read, not the state of the optimiser.

    Args:
      place: the folder of the tree, which has a file ``_METADATA``.

    Raises:
      WsrError: if the tree is damaged, or holds something other than arrays.
    """
    # Imported here: it takes 0.4 s.
    import orbax.checkpoint as ocp

    reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    try:
        tree = _parameters(reader.metadata(place.resolve()).item_metadata.tree)
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        request = ocp.args.PyTreeRestore(item=tree, restore_args=arguments, partial_restore=True)
        found = reader.restore(place.resolve(), args=request)
    except Exception as error:  # Orbax and TensorStore raise kinds of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WsrError(f"{place}: not readable as an Orbax tree: {reason[:200]}") from error
    finally:
        reader.close()
    leaves = {"/".join(map(_key, path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(_inside(found))}
    strange = [path for path, leaf in leaves.items() if not isinstance(leaf, np.ndarray)]
    if strange or not leaves:
        raise WsrError(f"{place}: expected a tree of arrays, found {', '.join(strange[:3]) or 'nothing'}")
    return leaves


def _parameters(tree: Any) -> Any:
    """Returns ``tree`` without what stands beside ``params`` at its top."""
    return {"params": tree["params"]} if isinstance(tree, Mapping) and "params" in tree else tree


def _inside(tree: Any) -> Any:
    """Returns the tree under ``params``, and under a second ``params`` in it, as a Flax training state has it."""
    while isinstance(tree, Mapping) and set(tree) == {"params"}:
        tree = tree["params"]
    return tree


def _key(entry: Any) -> str:
    return str(next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name)))
