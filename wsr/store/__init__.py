"""A population on disk: one base, one immutable checkpoint per member, every leaf with its hash."""

from wsr.store.encoder_part import DTypeOnDisk
from wsr.store.gram_file import GramFile
from wsr.store.leaves import hash_params
from wsr.store.record import MemberRecord, Quarantined
from wsr.store.store import Store

__all__ = ["DTypeOnDisk", "GramFile", "MemberRecord", "Quarantined", "Store", "hash_params"]
