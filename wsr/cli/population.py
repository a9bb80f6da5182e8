"""Opens a store as a region, and the checkpoint that its members started from: shared by several verbs."""

from wsr.models import Checkpoint, build
from wsr.models.load import load_processor
from wsr.region import Region
from wsr.store import Store
from wsr.studies.members import learned_region


def open_region(path: str) -> tuple[Store, Region]:
    """Returns the store and the region of its members that learned their dataset; says who was left out."""
    store = Store.open(path)
    model = build(store.model_name, store.model_config)
    return store, learned_region(model, store, store.records())


def open_base(store: Store) -> Checkpoint:
    """Returns the checkpoint that the store's members started from, with its tokenizer."""
    model = build(store.model_name, store.model_config)
    return Checkpoint(model, store.base(), load_processor(store.base_name, model))
