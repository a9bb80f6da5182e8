"""Opens a store as a region, and the checkpoint that its members started from: shared by several verbs."""

from wsr.data.fingerprint import fingerprint, other_fingerprint
from wsr.errors import WsrError
from wsr.models import Checkpoint, build
from wsr.models.load import load_processor
from wsr.region.learned import learned_region
from wsr.region.region import Region
from wsr.store import Store


def open_region(path: str) -> tuple[Store, Region]:
    """Returns the store and the region of its members that learned their dataset; says who was left out."""
    store = Store.open(path)
    model = build(store.model_name, store.model_config)
    return store, learned_region(model, store, store.records())


def open_base(store: Store) -> Checkpoint:
    """Returns the checkpoint that the store's members started from, with its tokenizer."""
    model = build(store.model_name, store.model_config)
    processor = load_processor(store.base_name, model)
    other = other_fingerprint(fingerprint(processor), store.tokenizer)
    if other:
        raise WsrError(
            f"{store.path}: the tokenizer of {store.base_name!r} is not the one its members were trained with: another "
            f"{' and another '.join(other)}; bring back the files that were there"
        )
    return Checkpoint(model, store.base(), processor)
