"""Tiny models and images under the names that the suites fetch: made by transformers, so that it can be the oracle."""

import copy
import io
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from clip_world import PROCESSOR, TEXT, VISION
from hub_repositories import Repository, text
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from wsr.studies.suites import Suite, Task, suite

WORDS, END = 600, "<|endoftext|>"
SEEDS = {"clip8": 1, "flan_t5_glue": 0, "gpt2_glue": 0}
"""Seeds of the bases: their members are right about some texts or images of each task that the tests read."""
TRAIN, TEST = 160, 48
"""Images of each split; at least two of each class."""


@cache
def base_of(name: str) -> Any:
    """Returns the base of a suite, with random weights."""
    import torch
    from transformers import CLIPConfig, CLIPModel, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

    torch.manual_seed(SEEDS[name])
    end, rows = bpe().eos_token_id, len(bpe())
    if name == "clip8":
        more = {"vocab_size": rows, "eos_token_id": end, "max_position_embeddings": 77}
        towers = ({**VISION, "projection_dim": 10}, {**TEXT, "projection_dim": 10, **more})
        model: Any = CLIPModel(CLIPConfig(vision_config=towers[0], text_config=towers[1], projection_dim=10))
    elif name == "flan_t5_glue":
        sizes = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
        more = {"decoder_start_token_id": end, "pad_token_id": end, "eos_token_id": end}
        more |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        model = T5ForConditionalGeneration(T5Config(vocab_size=rows, initializer_factor=2.0, **sizes, **more))
    else:
        sizes = {"n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 512, "initializer_range": 0.5}
        tokens = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=rows, **sizes, **tokens))
    return model.eval()


@cache
def member_of(name: str, task: str) -> Any:
    """Returns a model fine-tuned from the base, as the hub has it: a tower alone, or one with a classifier."""
    import torch
    from transformers import CLIPVisionModel, GPT2ForSequenceClassification

    base, number = base_of(name), [own.name for own in suite(name).tasks].index(task)
    if name == "clip8":
        model: Any = CLIPVisionModel(base.config.vision_config)
        own = {key: leaf for key, leaf in base.state_dict().items() if key.startswith("vision_model.")}
        model.load_state_dict(_named_as(model, own))
    elif name == "flan_t5_glue":
        model = copy.deepcopy(base)
    else:
        config = copy.deepcopy(base.config)
        config.num_labels = 3 if task == "mnli" else 2
        torch.manual_seed(80 + number)  # the tests need members that predict several classes
        model = GPT2ForSequenceClassification(config)
        model.transformer.load_state_dict(base.transformer.state_dict())
    torch.manual_seed(100 + number)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * parameter.std().nan_to_num(0.0) * torch.randn_like(parameter))
    return model.eval()


def _named_as(model: Any, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tensors under the names of ``model``; versions of transformers differ in a prefix."""
    wanted = model.state_dict()
    bare = {key.removeprefix("vision_model."): leaf for key, leaf in tensors.items()}
    return {key: bare[key.removeprefix("vision_model.")] for key in wanted if key.removeprefix("vision_model.") in bare}


@cache
def bpe() -> PreTrainedTokenizerFast:
    """Returns a tokenizer as GPT-2's: no token starts, divides or ends a text. It knows the prompts of the suites."""
    trained = ByteLevelBPETokenizer()
    texts = [text(row, row % 6, "sentence") for row in range(600)]
    texts += [prompt for name in ("clip8", "flan_t5_glue") for task in suite(name).tasks for prompt in _prompts(task)]
    trained.train_from_iterator(texts, WORDS, min_frequency=1, show_progress=False, special_tokens=[END])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token=END, eos_token=END, unk_token=END, pad_token=END
    )


def ending() -> PreTrainedTokenizerFast:
    """Returns the same tokenizer with a token that ends each text, as CLIP and T5 have."""
    tokenizer = copy.deepcopy(bpe())
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.eos_token_id)]
    )
    return tokenizer


def _prompts(task: Task) -> list[str]:
    return [task.prompt, *task.answers, *task.templates] * 20


def models_of(chosen: Suite, tasks: Sequence[Task]) -> dict[str, Repository]:
    """Returns the repositories of a suite's base and of the members of some tasks."""
    found = {}
    for name, model in (
        (chosen.base, base_of(chosen.name)),
        *((task.member, member_of(chosen.name, task.name)) for task in tasks),
    ):
        with tempfile.TemporaryDirectory() as place:
            model.save_pretrained(place)
            if chosen.scored != "zero_shot" or name == chosen.base:
                (bpe() if chosen.scored == "classifier" else ending()).save_pretrained(place)
            if chosen.scored == "zero_shot" and name == chosen.base:
                PROCESSOR.save_pretrained(Path(place))
            files = {path.name: path.read_bytes() for path in Path(place).iterdir()}
        pinned = chosen.revision if name == chosen.base else None
        found[name] = Repository(name, files, pinned=pinned)
    return found


def images_of(task: Task) -> Repository:
    """Returns a repository of images that show their class by their brightness, with the columns image and label."""
    source: Any = task.data.source
    names = [str(number) for number in range(task.data.classes or 0)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    files = {}
    folder = f"{source.config}/" if source.config else "data/"
    for split, least in (("train", TRAIN), ("test", TEST)):
        labels = [at % len(names) for at in range(max(least, (4 if split == "train" else 1) * len(names)))]
        cells = [
            {"bytes": _png(at + 10_000 * (split == "test"), label), "path": None} for at, label in enumerate(labels)
        ]
        content = io.BytesIO()
        datasets.Dataset.from_dict({"image": cells, "label": labels}, features=features).to_parquet(content)
        files[f"{folder}{split}-00000-of-00001.parquet"] = content.getvalue()
    config = source.config or "default"
    listed = "".join(f"  - split: {split}\n    path: {folder}{split}-*\n" for split in ("train", "test"))
    files["README.md"] = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{listed}---\n".encode()
    return Repository(source.path, files)


def _png(row: int, label: int) -> bytes:
    import PIL.Image

    random = np.random.default_rng(row)
    pixels = np.clip(random.integers(0, 90, (14, 15, 3)) + 16 * (label % 10), 0, 255).astype(np.uint8)
    content = io.BytesIO()
    PIL.Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
