"""What people use today to evaluate a model between models, in PyTorch; each as fast as a careful user would write it.

All of them encode texts sorted by length in batches padded to their own longest text, in inference mode, on all cores.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from wsr.data.dataset import Dataset, Split
from wsr.models.huggingface import export
from wsr.models.model import Checkpoint
from wsr.types import Params

BATCH = 32

logging.disable_progress_bar()


class Rivals:
    """Members and base as PyTorch state dicts and safetensors files, and the ways to evaluate points between them.

    Args:
      checkpoint: architecture, base and tokenizer.
      members: the population.
      device: "cpu" or "cuda".
      compiled: whether the resident model goes through ``torch.compile``.
    """

    def __init__(self, checkpoint: Checkpoint, members: list[Params], *, device: str = "cpu", compiled: bool = False):
        self.device = torch.device(device)
        self._folder = tempfile.TemporaryDirectory()
        self._files = []
        for number, params in enumerate([checkpoint.params, *members]):
            folder = Path(self._folder.name) / str(number)
            export(replace(checkpoint, params=params), folder)
            self._files.append(folder / "model.safetensors")
        self._config = AutoConfig.from_pretrained(self._files[0].parent)
        self._states = [load_file(file) for file in self._files]
        self._model = self._new_model()
        # The strongest way to mix: all weights are views of one vector, and a point is one matrix-vector product.
        self._flat = torch.empty(sum(tensor.numel() for tensor in self._states[0].values()), device=self.device)
        self._stacked = torch.stack([self._flattened(state) for state in self._states]).to(self.device)
        self._resident = self._with_views(self._new_model())
        self._encode_resident = torch.compile(self._resident, dynamic=True) if compiled else self._resident

    def disk(self, coefficients: Float[np.ndarray, "points members"], dataset: Dataset) -> list[np.ndarray]:
        """A merge tool, then an evaluator: mixes files into a file, loads that, encodes."""
        losses = []
        for row in coefficients:
            states = [load_file(file) for file in self._files]
            folder = Path(self._folder.name) / "mixed"
            folder.mkdir(exist_ok=True)
            (folder / "config.json").write_text(json.dumps(self._config.to_dict()))
            save_file(_mixed(states, row), folder / "model.safetensors", metadata={"format": "pt"})
            model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval().to(self.device)
            losses.append(self._losses(model, dataset))
        return losses

    def reload(self, coefficients: Float[np.ndarray, "points members"], dataset: Dataset) -> list[np.ndarray]:
        """Most papers' scripts: mixes state dicts in memory, ``load_state_dict``, encodes."""
        losses = []
        for row in coefficients:
            self._model.load_state_dict(_mixed(self._states, row), strict=False)
            losses.append(self._losses(self._model, dataset))
        return losses

    def resident(
        self, coefficients: Float[np.ndarray, "points members"], dataset: Dataset, *, bfloat16: bool = False
    ) -> list[np.ndarray]:
        """The strongest classic loop: mixes in place into a live model, encodes."""
        losses = []
        for row in coefficients:
            weights = torch.tensor([1 - row.sum(), *row], dtype=torch.float32, device=self.device)
            with torch.inference_mode():
                torch.mv(self._stacked.T, weights, out=self._flat)
            losses.append(self._losses(self._encode_resident, dataset, bfloat16=bfloat16))
        return losses

    def _losses(self, model: torch.nn.Module, dataset: Dataset, *, bfloat16: bool = False) -> np.ndarray:
        probe, test = (self._features(model, dataset.texts(split), bfloat16) for split in ("probe", "test"))
        fitted = LogisticRegression(C=1.0, max_iter=2000).fit(probe, dataset.splits["probe"].labels)
        chances = fitted.predict_proba(test)
        return -np.log(chances[np.arange(len(test)), dataset.splits["test"].labels])

    def _features(self, model: torch.nn.Module, split: Split, bfloat16: bool) -> np.ndarray:
        features = np.empty((len(split), self._config.hidden_size), np.float32)
        precision = torch.autocast(self.device.type, torch.bfloat16) if bfloat16 else nullcontext()
        with torch.inference_mode(), precision:
            for texts, batch in _sorted_batches(split, self._config.pad_token_id, self.device):
                hidden = model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"][..., None].float()
                features[texts] = ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()
        return features

    def _new_model(self) -> torch.nn.Module:
        model = AutoModel.from_config(self._config, attn_implementation="sdpa", add_pooling_layer=False)
        model.load_state_dict(self._states[0], strict=False)
        return model.eval().to(self.device)

    def _flattened(self, state: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([state[name].reshape(-1).float() for name in self._states[0]])

    def _with_views(self, model: torch.nn.Module) -> torch.nn.Module:
        parameters = dict(model.named_parameters())
        start = 0
        for name, tensor in self._states[0].items():
            parameters[name].data = self._flat[start : start + tensor.numel()].view(tensor.shape)
            start += tensor.numel()
        return model


def _mixed(states: list[dict[str, torch.Tensor]], row: Float[np.ndarray, " members"]) -> dict[str, torch.Tensor]:
    weights = [1 - float(row.sum()), *map(float, row)]
    mixed = {}
    for name, tensor in states[0].items():
        total = tensor * weights[0]
        for state, weight in zip(states[1:], weights[1:], strict=True):
            total.add_(state[name], alpha=weight)
        mixed[name] = total
    return mixed


def _sorted_batches(
    split: Split, pad_token_id: int, device: torch.device
) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    order = np.argsort(split.lengths, kind="stable")
    for first in range(0, len(order), BATCH):
        texts = order[first : first + BATCH]
        lengths = split.lengths[texts]
        shape = (len(texts), int(lengths.max()))
        arrays = {name: np.zeros(shape, np.int64) for name in ("input_ids", "token_type_ids", "attention_mask")}
        arrays["input_ids"][:] = pad_token_id
        for row, text in enumerate(texts):
            piece = slice(split.offsets[text], split.offsets[text + 1])
            arrays["input_ids"][row, : lengths[row]] = split.token_ids[piece]
            arrays["token_type_ids"][row, : lengths[row]] = split.token_types[piece]
            arrays["attention_mask"][row, : lengths[row]] = 1
        yield texts, {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
