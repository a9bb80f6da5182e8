"""Fine-tuning members of a population against a plain PyTorch loop, a model at a time, on the same texts and steps."""

from dataclasses import replace

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
    from pathlib import Path

    accelerator = jax.default_backend() != "cpu"
    members = MEMBERS_ON_ACCELERATOR if accelerator else 1
    checkpoint = load("minilm")
    dataset = load_dataset("vader_movie", checkpoint.processor, max_length=64, sizes={"finetune": TEXTS})
    recipe = Recipe(learning_rate=5e-5, batch_size=BATCH, epochs=1.0, warmup=0.006)
    jobs = [Job(dataset, seed, recipe) for seed in range(members)]
    with tempfile.TemporaryDirectory() as folder:
        export(checkpoint, Path(folder))
        rival = PlainLoop(folder, dataset, recipe, "cuda" if accelerator else "cpu")
        ours: list[np.ndarray] = []

        def train_ours() -> None:
            chunk = chunk_for_device(len(jobs))
            ours[:] = [member.losses for member in finetune(checkpoint.model, checkpoint.params, jobs, chunk=chunk)]

        theirs: list[np.ndarray] = []

        def train_theirs() -> None:
            theirs[:] = [rival.train(job.seed) for job in jobs]

        seconds = side_by_side({"wsr": train_ours, "PyTorch": train_theirs}, repeats=REPEATS)
    steps = len(ours[0])
    result = Result(
        name="fine-tuning",
        work=f"MiniLM, {members} members, vader_movie, {steps} steps of {BATCH} texts, AdamW, dropout, fp32",
        ours="wsr",
        seconds=seconds,
        units=members,
        unit="member",
        figures={
            "tokens a member": int(dataset.splits["finetune"].lengths.sum()),
            "mean loss of the last four steps, wsr": float(np.mean([loss[-4:] for loss in ours])),
            "mean loss of the last four steps, PyTorch": float(np.mean([loss[-4:] for loss in theirs])),
        },
    )
    wanted = 3.0 if accelerator else 1.0
    mark = Mark("times as fast as the PyTorch loop, a member", result.ratio("PyTorch"), wanted)
    return [replace(result, marks=(mark,))]


class PlainLoop:
    """AutoModel, mean pooling, a linear head, dynamic padding, fused AdamW with the same schedule."""

    def __init__(self, folder: str, dataset: Dataset, recipe: Recipe, device: str):
        self.folder, self.dataset, self.recipe, self.device = folder, dataset, recipe, device

    def train(self, seed: int) -> np.ndarray:
        """Returns the loss of each step."""
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
            hidden = encoder(input_ids=ids.to(self.device), attention_mask=mask.long()).last_hidden_state
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
