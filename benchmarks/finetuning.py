"""Fine-tuning members of a population against a plain PyTorch loop, a model at a time, on the same texts and steps."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import torch
from transformers import AutoModel

from benchmarks.harness import Mark, Result, side_by_side
from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.models import load
from wsr.models.huggingface import export
from wsr.runtime import seeds
from wsr.runtime.devices import chunk_for_device
from wsr.training import Job, Recipe, finetune

TEXTS, BATCH, REPEATS = 512, 32, 3
MEMBERS_ON_ACCELERATOR = 16


def run() -> list[Result]:
    """Trains one member a call on a CPU, sixteen on an accelerator; needs PyTorch."""
    import tempfile

    accelerator = jax.default_backend() != "cpu"
    members = MEMBERS_ON_ACCELERATOR if accelerator else 1
    checkpoint = load("minilm")
    dataset = load_dataset("vader_movie", checkpoint.processor, max_length=64, sizes={"finetune": TEXTS})
    recipe = Recipe(learning_rate=5e-5, batch_size=BATCH, epochs=1.0, warmup=0.006)
    jobs = [Job(dataset, seed, recipe) for seed in range(members)]
    in_bfloat16 = [replace(job, recipe=replace(recipe, precision="bfloat16")) for job in jobs]
    losses: dict[str, list[np.ndarray]] = {}

    def ours(name: str, jobs: list[Job]) -> None:
        trained = finetune(checkpoint.model, checkpoint.params, jobs, chunk=chunk_for_device(len(jobs)))
        losses[name] = [member.losses for member in trained]

    def theirs(name: str, *, bfloat16: bool) -> None:
        losses[name] = [rival.train(job.seed, bfloat16=bfloat16) for job in jobs]

    with tempfile.TemporaryDirectory() as folder:
        export(checkpoint, Path(folder))
        rival = PlainLoop(folder, dataset, recipe, "cuda" if accelerator else "cpu")
        contenders = {
            "wsr": partial(ours, "wsr", jobs),
            "wsr bf16": partial(ours, "wsr bf16", in_bfloat16),
            "PyTorch": partial(theirs, "PyTorch", bfloat16=False),
            "PyTorch bf16": partial(theirs, "PyTorch bf16", bfloat16=True),
        }
        seconds = side_by_side(contenders, repeats=REPEATS)
    steps = len(losses["wsr"][0])
    result = Result(
        name="fine-tuning, fp32",
        work=f"MiniLM, {members} members, vader_movie, {steps} steps of {BATCH} texts, AdamW, dropout",
        ours="wsr",
        seconds=seconds,
        units=members,
        unit="member",
        figures={"tokens a member": int(dataset.splits["finetune"].lengths.sum())}
        | {
            f"mean loss of the last four steps, {name}": float(np.mean([loss[-4:] for loss in own]))
            for name, own in losses.items()
        },
    )
    half = replace(result, name="fine-tuning, bf16", ours="wsr bf16", figures={})
    wanted = 3.0 if accelerator else 1.0
    mark = Mark("times as fast as the PyTorch loop, a member", result.ratio("PyTorch"), wanted)
    marks_in_bfloat16 = (Mark("times as fast as our fp32, a member", half.ratio("wsr"), 1.4),)
    return [replace(result, marks=(mark,)), replace(half, marks=marks_in_bfloat16)]


class PlainLoop:
    """AutoModel, mean pooling, a linear head, dynamic padding, fused AdamW with the same schedule."""

    def __init__(self, folder: str, dataset: Dataset, recipe: Recipe, device: str):
        self.folder, self.dataset, self.recipe, self.device = folder, dataset, recipe, device

    def train(self, seed: int, *, bfloat16: bool = False) -> np.ndarray:
        """Returns the loss of each step, computed under bfloat16 autocast or in float32."""
        torch.manual_seed(seed)
        split = self.dataset.texts("finetune")
        encoder = AutoModel.from_pretrained(self.folder, add_pooling_layer=False).train().to(self.device)
        head = torch.nn.Linear(encoder.config.hidden_size, self.dataset.classes, device=self.device)
        optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1.0, fused=True)
        rates = Job(self.dataset, seed, self.recipe).learning_rates(-(-len(split) // self.recipe.batch_size))
        order = seeds.generator(seed, "order", "plain loop").permutation(len(split))
        losses = []
        for step, first in enumerate(range(0, len(order), self.recipe.batch_size)):
            texts = order[first : first + self.recipe.batch_size]
            tokens = [split.token_ids[split.offsets[text] : split.offsets[text + 1]] for text in texts]
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.from_numpy(t.astype(np.int64)) for t in tokens], batch_first=True
            )
            lengths = torch.tensor([len(t) for t in tokens])
            mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).to(self.device)
            with torch.autocast(self.device, torch.bfloat16, enabled=bfloat16):
                hidden = encoder(input_ids=ids.to(self.device), attention_mask=mask.long()).last_hidden_state
            hidden = hidden.float()
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            loss = torch.nn.functional.cross_entropy(
                head(pooled), torch.from_numpy(split.labels[texts].astype(np.int64)).to(self.device)
            )
            for group in optimizer.param_groups:
                group["lr"] = float(rates[step]) * self.recipe.learning_rate
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).cpu().numpy()
