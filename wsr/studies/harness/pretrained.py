"""Pretrains small encoders for studies, as model folders that ``wsr.load`` opens."""

import dataclasses
import json
import math
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsr.data.dataset import Split, joined
from wsr.data.load import load_dataset
from wsr.data.table import PACKAGED
from wsr.models import load
from wsr.models.huggingface import export
from wsr.studies.harness.plan import same_plan_or_refuse
from wsr.studies.harness.preset import Preset
from wsr.training.pretrain import Pretraining, pretrain

TOLD = "pretraining.json"
"""File of a checkpoint's folder with the loss and the perplexity of masked tokens."""


@dataclass(frozen=True)
class Corpus:
    """The texts on which an encoder is pretrained, and its tokenizer."""

    tokenizer_of: str
    """Checkpoint whose tokenizer the encoder uses."""
    datasets: tuple[str, ...]
    """Datasets whose fine-tuning splits are read, without labels; the test splits score the result."""
    most_texts: int = 100_000
    """Largest number of texts from each dataset."""


PLANS: Mapping[str, tuple[Corpus, Pretraining]] = {
    "smoke": (
        Corpus("tiny", ("made_up_a1", "made_up_b1"), 200),
        Pretraining(layers=2, hidden=16, heads=2, max_length=64, steps=30, batch_size=16, learning_rate=1e-2),
    ),
    # Takes a few minutes on two CPU cores. It is far weaker than BERT: it reads a few megabytes.
    "packaged": (
        Corpus(
            "minilm",
            (
                *("vader_movie", "vader_amazon", "vader_nyt", "vader_tweets", "newsgroups_comp", "newsgroups_rec_sci"),
                *("reuters_r8", "election_tweets"),
            ),
        ),
        Pretraining(layers=4, hidden=128, heads=4, max_length=64, steps=2000, batch_size=64, learning_rate=1e-3),
    ),
    # A base that was pretrained and nothing else, on all packaged text; 60 to 80 minutes on two CPU cores.
    "packaged_large": (
        Corpus("minilm", tuple(name for name in PACKAGED if name != "newsgroups")),
        Pretraining(
            layers=4,
            hidden=256,
            heads=4,
            max_length=128,
            steps=8000,
            batch_size=64,
            learning_rate=7e-4,
            precision="bfloat16",
        ),
    ),
}


def pretrained(folder: Path, corpus: Corpus, plan: Pretraining, *, seed: int) -> Path:
    """Pretrains a checkpoint into ``folder``, unless it is there, and returns the folder.

    Rerun it after an interruption: it resumes from the state that it last wrote beside the folder.

    Args:
      folder: the model folder to write.
      corpus: the texts and the tokenizer.
      plan: the encoder's sizes, and how it is pretrained.
      seed: determines the parameters, the order of texts and the masks.

    Raises:
      WsrError: the folder holds a checkpoint of another plan.
    """
    about = {"corpus": dataclasses.asdict(corpus), "pretraining": dataclasses.asdict(plan), "seed": seed}
    if folder.exists():
        same_plan_or_refuse(folder, about)
        return folder
    tokenizer = load(corpus.tokenizer_of).processor
    texts, held_out = (_texts(corpus, tokenizer, plan.max_length, split) for split in ("finetune", "test"))
    # The name depends on the plan, so that a run does not resume from another plan's state.
    unfinished = folder.parent / f".{folder.name}-{zlib.crc32(repr(about).encode()):08x}.npz"
    found = pretrain(texts, tokenizer, plan, seed=seed, keep=unfinished, held_out=held_out)
    tenth = max(1, len(found.losses) // 10)
    told = {
        "texts": len(texts),
        "tokens": len(texts.token_ids),
        "loss_in_the_first_tenth": float(found.losses[:tenth].mean()),
        "loss_in_the_last_tenth": float(found.losses[-tenth:].mean()),
        "held_out_texts": len(held_out),
        "held_out_loss": found.held_out,
        "held_out_perplexity": math.exp(found.held_out),
    }
    print(
        f"{folder}: {len(texts):,} texts of {len(corpus.datasets)} datasets, {plan.steps:,} steps; loss of the masked "
        f"tokens {told['loss_in_the_first_tenth']:.2f} in the first tenth, {told['loss_in_the_last_tenth']:.2f} in the "
        f"last; perplexity on {len(held_out):,} held-out texts {told['held_out_perplexity']:.1f}",
        flush=True,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        export(found.checkpoint, work / "model")
        (work / "model" / TOLD).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        same_plan_or_refuse(work / "model", about)
        (work / "model").rename(folder)  # completely or not at all
    finally:
        shutil.rmtree(work, ignore_errors=True)
    unfinished.unlink(missing_ok=True)
    return folder


def members_need(preset: Preset, *, texts: int, passes: float, rate: float) -> dict[str, int | float]:
    """Returns the fields of a preset with which members of such an encoder are trained, because it is weak.

    Args:
      preset: the population.
      texts: number of examples of a member; 0 for the preset's.
      passes: passes over them; 0 for the preset's.
      rate: highest learning rate; 0 for the preset's.
    """
    return {
        "finetune_texts": texts or preset.finetune_texts,
        "epochs": passes or preset.epochs,
        "learning_rate": rate or preset.learning_rate,
    }


def said_of(corpus: Corpus, plan: Pretraining) -> str:
    """Returns what such an encoder is, for reports: the end of a sentence."""
    return (
        f"a small BERT ({plan.layers} layers, hidden size {plan.hidden}), far weaker than the original, pretrained "
        f"from random parameters by masked language modelling: {plan.steps:,} steps of {plan.batch_size} texts from "
        f"the fine-tuning splits of {', '.join(corpus.datasets)}"
    )


def perplexity_told(folder: Path) -> str:
    """Returns a sentence with the perplexity of the masked tokens of texts that an encoder did not read.

    Args:
      folder: what ``pretrained`` wrote.
    """
    told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
    texts, perplexity = told["held_out_texts"], told["held_out_perplexity"]
    return f"Its perplexity on masked tokens of {texts:,} other texts is {perplexity:.1f}."


def _texts(corpus: Corpus, tokenizer: object, max_length: int, split: str) -> Split:
    splits = []
    for name in corpus.datasets:
        whole = load_dataset(name, tokenizer, max_length=max_length).texts(split)
        splits.append(whole.take(np.arange(min(len(whole), corpus.most_texts))))
    return joined(splits)
