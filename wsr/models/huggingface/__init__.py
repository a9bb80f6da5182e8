"""Reads and writes Hugging Face model folders, as an architecture's ``Counterpart`` describes them.

config.py    converts configs and refuses unsupported attributes by name
weights.py   maps tensor names and shapes in both directions
files.py     reads safetensors, one file or sharded
"""

from wsr.models.huggingface.folder import POOLING_FILE, export, import_folder
from wsr.models.huggingface.peft import Adapter, read_adapter

__all__ = ["POOLING_FILE", "Adapter", "export", "import_folder", "read_adapter"]
