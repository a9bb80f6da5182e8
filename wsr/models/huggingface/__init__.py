"""Hugging Face model folders: what an architecture's ``Counterpart`` says, put to work.

config.py    configs: what is understood is taken over, what is not is refused by name
weights.py   the weight map, read in both directions
files.py     safetensors, one file or sharded
folder.py    a whole folder in, a whole folder out
peft.py      LoRA adapters
hub.py       folders from the hub
"""

from wsr.models.huggingface.folder import POOLING_FILE, export, import_folder
from wsr.models.huggingface.peft import Adapter, read_adapter

__all__ = ["POOLING_FILE", "Adapter", "export", "import_folder", "read_adapter"]
