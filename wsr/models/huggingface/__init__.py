"""Reads and writes Hugging Face model folders, as an architecture's ``Counterpart`` describes them.

config.py    converts configs and refuses unsupported attributes by name
read_attributes.py   lists the config attributes that the code of transformers reads; its table is attributes_read.json
head_parts.py   the modules of a head that an adapter has from its base
weights.py   maps tensor names and shapes in both directions
tokenizer.py   reads tokenizers, also from SentencePiece models; siglip_tokenizer.py makes SigLIP's a fast one
pooling.py   reads and writes the pooling in the file of sentence-transformers
whole.py     the other parts of a model that contains the encoder, such as CLIP's text tower
part.py      reads such a part as a model of its own
files.py     opens the weights of a folder
flax_msgpack.py   reads flax_model.msgpack, of transformers until version 4
orbax_tree.py, zarr_tree.py, numpy_archive.py   read Orbax trees, steps of levanter and .npz files
tree_layouts.py   maps such trees: tree_parts.py (what a layout is), maxtext.py, deepmind_gemma.py,
    levanter.py, big_vision.py
peft.py, peft_write.py   read and write LoRA adapters in PEFT's files; peft_config.py reads their config
sentence_modules.py   which SentenceTransformers are kept
"""

from wsr.models.huggingface.folder import export, import_folder
from wsr.models.huggingface.peft import Adapter, read_adapter
from wsr.models.huggingface.pooling import POOLING_FILE

__all__ = ["POOLING_FILE", "Adapter", "export", "import_folder", "read_adapter"]
