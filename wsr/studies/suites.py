"""The standard tables of model merging: their models, datasets, prompts and published figures, each with its source.

No models or data are here, only their names on the Hugging Face hub. All models but the bases were fine-tuned and
published by the authors of FusionBench (Tang et al. 2024, arXiv 2406.03280). Facts marked ``FUSION_BENCH`` were read in
their repository at that commit.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from wsr.data.examples import Columns
from wsr.data.hub import Hub
from wsr.data.table import DatasetSpec, find
from wsr.errors import WsrError, nearest_names

FUSION_BENCH = "github.com/tanganke/fusion_bench at 54c9e8c9d9621620c720452cd8533332a32d3689"
CLIP_PROMPTS = "github.com/openai/CLIP at d05afc436d78f1c48dc0dbf8e5980a9d471f35f6, data/prompts.md"
SUITES = ("clip8", "flan_t5_glue", "gpt2_glue")
Scored = Literal["zero_shot", "classifier", "choices"]
CLASSES = Path(__file__).with_name("clip8.json")
"""Names of the classes and templates of the prompts of the eight image tasks, in the order of the labels."""


@dataclass(frozen=True)
class Task:
    """One column of a table: a fine-tuned model and the dataset that it was fine-tuned on."""

    name: str
    member: str
    """The model on the hub."""
    data: DatasetSpec
    templates: tuple[str, ...] = ()
    """Prompts of a zero-shot head, with ``{}`` where the name of the class stands."""
    prompt: str = ""
    """Question of a text-to-text model, with the dataset's columns in braces."""
    answers: tuple[str, ...] = ()
    """Answers to that question, in the order of the labels."""


@dataclass(frozen=True)
class Published:
    """A row of a table that its authors published."""

    group: str
    """Name of our row that it compares with."""
    setting: str
    """Options of the authors, where ours are chosen on validation data."""
    percent: tuple[float, ...]
    """One per task, in the order of the suite's tasks."""
    source: str
    """File in their repository."""


@dataclass(frozen=True)
class Suite:
    """One table: models fine-tuned from one base on several tasks."""

    name: str
    title: str
    base: str
    """The base on the hub."""
    revision: str | None
    """Commit of the base; None for the newest."""
    parameters: int
    """Number of parameters of a member, of which each takes 4 bytes."""
    scored: Scored
    """What scores a model: a head made of prompts, the classifiers of the members, or the likelihood of answers."""
    tasks: tuple[Task, ...]
    published: tuple[Published, ...]
    differs: str
    """How our scores may differ from the published ones."""
    sources: tuple[tuple[str, str], ...]
    """What was read where."""


@cache
def suite(name: str) -> Suite:
    """Returns a suite by name.

    Args:
      name: one of ``SUITES``.

    Raises:
      WsrError: if there is no such suite.

    Example:
      >>> from wsr.studies.suites import suite
      >>> [task.name for task in suite("gpt2_glue").tasks]
      ['cola', 'mnli', 'mrpc', 'qnli', 'qqp', 'rte', 'sst2']
    """
    made = {"clip8": _clip8, "flan_t5_glue": _flan_t5_glue, "gpt2_glue": _gpt2_glue}
    if name not in made:
        raise WsrError(f"no suite is called {name!r}; nearest: {nearest_names(name, SUITES)}")
    return made[name]()


def some_tasks(whole: Suite, names: Sequence[str]) -> tuple[Task, ...]:
    """Returns the tasks of a suite with these names, in the suite's order; all tasks if there are no names.

    Raises:
      WsrError: if the suite has no such task, or fewer than two are left to merge.
    """
    known = [task.name for task in whole.tasks]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise WsrError(f"{whole.name} has no task {wrong[0]!r}; it has {', '.join(known)}")
    kept = tuple(task for task in whole.tasks if not names or task.name in names)
    if len(kept) < 2:
        raise WsrError(f"{whole.name}: one task leaves nothing to merge; name two or more of {', '.join(known)}")
    return kept


_TRAIN_TEST = {"train": "train", "test": "test"}
_IMAGES = {
    "sun397": Hub("tanganke/sun397", None, _TRAIN_TEST),
    "stanford-cars": Hub("tanganke/stanford_cars", None, _TRAIN_TEST),
    "resisc45": Hub("tanganke/resisc45", None, _TRAIN_TEST),
    "eurosat": Hub("tanganke/eurosat", None, _TRAIN_TEST),
    "svhn": Hub("ufldl-stanford/svhn", "cropped_digits", _TRAIN_TEST),
    "gtsrb": Hub("tanganke/gtsrb", None, _TRAIN_TEST),
    "mnist": Hub("ylecun/mnist", None, _TRAIN_TEST),
    "dtd": Hub("tanganke/dtd", None, _TRAIN_TEST),
}


def _clip8() -> Suite:
    words = json.loads(CLASSES.read_text(encoding="utf-8"))
    tasks = []
    for name, source in _IMAGES.items():
        classes = tuple(words[name]["classes"])
        data = DatasetSpec(name, "images", source, Columns("image"), len(classes), classes, reads="images")
        member = f"tanganke/clip-vit-base-patch32_{name}"
        tasks.append(Task(name, member, data, templates=tuple(words[name]["templates"])))
    return Suite(
        "clip8",
        "CLIP ViT-B/32 on eight image tasks",
        "openai/clip-vit-base-patch32",
        # The newest commit holds the weights only as pickle, Flax and TensorFlow files. This one, a pull request on the
        # hub, adds model.safetensors.
        "d15b5f29721ca72dac15f8526b284be910de18be",
        87_456_000,
        "zero_shot",
        tuple(tasks),
        (
            Published("pretrained", "", (63.2, 59.8, 60.7, 46.0, 31.6, 32.5, 48.3, 43.9), "docs/modelpool/clip_vit.md"),
            Published("individual", "", (75.0, 78.3, 95.2, 99.0, 97.3, 98.9, 99.6, 79.7), "docs/modelpool/clip_vit.md"),
            Published(
                "regmean_plus_plus",
                "",
                (69.3, 70.5, 86.7, 96.1, 94.1, 90.4, 99.0, 68.7),
                "examples/regmean_plusplus/results/clip-vit-base-patch32/TA8.json",
            ),
        ),
        "The same score: the class of the nearest mean prompt on the test split. The text tower and the projection are "
        "the base's.",
        (
            ("models", "config/modelpool/CLIPVisionModelPool/clip-vit-base-patch32_TA8.yaml"),
            ("datasets, splits", "config/dataset/image_classification/{train,test}/*.yaml"),
            ("columns image and label", "fusion_bench/dataset/image_dataset.py"),
            ("classes and templates", "fusion_bench/tasks/clip_classification/*.py"),
            (
                "classes and templates, again",
                f"{CLIP_PROMPTS}: equal, but for the order of EuroSAT's classes; it has no SVHN, which takes MNIST's",
            ),
            ("head", "fusion_bench/models/hf_clip.py"),
            ("parameters", "examples/regmean_plusplus/results/clip-vit-base-patch32/TA8.json"),
            (
                "commit of the base",
                "github.com/huggingface/candle, candle-examples/examples/clip/main.rs reads model.safetensors at "
                "refs/pr/15; other programs on GitHub name the commit",
            ),
        ),
    )


_NO_YES = ("no", "yes")
_YES_NO = ("yes", "no")
_PROMPTS = {
    "cola": (
        "Indicate if the following sentence is grammatically correct or not: \"{sentence}\". Answere 'acceptable' or "
        "'unacceptable'.",
        ("unacceptable", "acceptable"),
    ),
    "mnli": (
        "Does the premise: '{premise}' logically imply, contradict, or is neutral to the hypothesis: '{hypothesis}'? "
        "Answere with 'entailment', 'contradiction', or 'neutral'.",
        ("entailment", "neutral", "contradiction"),
    ),
    "mrpc": (
        "Are the following sentences '{sentence1}' and '{sentence2}' conveying the same meaning? Answere with 'yes' or "
        "'no'.",
        _NO_YES,
    ),
    "qnli": (
        "Given the context: '{sentence}', does the question '{question}' have an answer based on the information "
        "provided? Answer with 'yes' or 'no'.",
        _YES_NO,
    ),
    "qqp": (
        "Do the questions '{question1}' and '{question2}' have the same intent? Answere with 'yes' or 'no'.",
        _NO_YES,
    ),
    "rte": (
        "Does the text: '{sentence1}' entail that '{sentence2}' is true? Provide 'yes' or 'no'.",
        _YES_NO,
    ),
    "sst2": (
        "Given the sentence '{sentence}', determine the sentiment. Is it positive or negative?",
        ("negative", "positive"),
    ),
    "stsb": (
        "Consider the sentences '{sentence1}' and '{sentence2}'. On a scale from 1 (completely different) to 5 "
        "(completely similar), rate the similarity.",
        tuple(f"{tenths / 10:.1f}" for tenths in range(51)),
    ),
}
"""Prompt and answers of each task as the models were fine-tuned with, misspellings included. The answers of STS-B are
the scores from 0 to 5, written with one decimal."""


def _glue(name: str) -> DatasetSpec:
    """Returns a task of GLUE, whose labelled validation split takes the place of the test split."""
    return find("mnli_matched" if name == "mnli" else name)


_GLUE_SOURCE = (
    "datasets, columns",
    "nyu-mll/glue at the commit that wsr.data.table pins; MNLI is tested on its matched validation split",
)


def _flan_t5_glue() -> Suite:
    page = "docs/modelpool/flan-t5_generation.md"
    return Suite(
        "flan_t5_glue",
        "Flan-T5-base on eight tasks of GLUE",
        "google/flan-t5-base",
        None,
        247_577_856,
        "choices",
        tuple(
            Task(name, f"tanganke/flan-t5-base_glue-{name}", _glue(name), prompt=prompt, answers=answers)
            for name, (prompt, answers) in _PROMPTS.items()
        ),
        (
            Published("pretrained", "", (69.1, 56.5, 76.2, 88.4, 82.1, 80.1, 91.2, 62.2), page),
            Published("individual", "", (75.0, 83.4, 87.5, 91.5, 85.4, 85.9, 93.6, 88.7), page),
            Published("uniform", "", (69.1, 62.6, 79.4, 89.8, 83.9, 81.2, 91.7, 73.2), page),
            Published("task_arithmetic", "scale 0.3", (70.5, 57.8, 78.4, 90.2, 83.6, 80.5, 92.3, 77.8), page),
            Published("ties", "scale 0.3", (70.3, 65.0, 78.9, 90.2, 83.5, 81.6, 91.7, 78.3), page),
        ),
        "Published scores count a generated text as right only if it is the answer. Here the likeliest of the allowed "
        "answers is chosen, so a model that would write something else scores higher here.",
        (
            ("models", "config/modelpool/Seq2SeqLMPool/flan-t5-base_glue.yaml, config/model/flan-t5/*.yaml"),
            ("prompts, answers", "fusion_bench/tasks/flan_t5_text_generation/glue_prompt_templates.py"),
            ("splits", "config/taskpool/flan-t5_glue_text_generation.yaml"),
            ("metrics", "docs/taskpool/flan-t5_generation.md: accuracy, and Spearman's rho for STS-B"),
            ("parameters", page),
            _GLUE_SOURCE,
        ),
    )


def _gpt2_glue() -> Suite:
    page = "docs/modelpool/gpt2_classification.md"
    names = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2")
    return Suite(
        "gpt2_glue",
        "GPT-2 on seven tasks of GLUE",
        "openai-community/gpt2",
        None,
        124_439_808,
        "classifier",
        tuple(Task(name, f"tanganke/gpt2_{name}", _glue(name)) for name in names),
        (
            Published("pretrained", "", (30.8725, 33.0107, 31.3725, 49.1671, 63.166, 52.7076, 50.9174), page),
            Published("individual", "", (76.8, 82.1, 80.4, 88.3, 89.6, 65.3, 91.2), page),
            Published("uniform", "", (55.0, 55.1, 51.0, 57.6, 76.7, 44.8, 52.5), page),
            Published("fisher", "", (54.8, 58.0, 39.5, 63.3, 81.5, 49.1, 64.7), page),
            Published("regmean", "", (61.7, 70.4, 65.4, 69.7, 78.8, 56.0, 79.7), page),
            Published("task_arithmetic", "scale 0.5", (68.7, 68.6, 69.6, 70.5, 81.8, 47.3, 83.6), page),
            Published("ties", "scale 0.6", (68.4, 71.4, 68.4, 69.6, 82.4, 47.7, 81.8), page),
        ),
        "The same score: accuracy under the member's own classifier on the validation split.",
        (
            ("models", "config/modelpool/gpt-2_glue.yaml; gpt2 is now openai-community/gpt2 on the hub"),
            ("splits", "config/taskpool/gpt-2_glue.yaml"),
            ("texts", "fusion_bench/dataset/gpt2_glue.py: pairs without anything in between, cut at 512 tokens"),
            ("head", "fusion_bench/taskpool/gpt2_text_classification.py: the member's classifier on merged layers"),
            ("parameters", "GPT-2 small as transformers builds it from its published config"),
            _GLUE_SOURCE,
        ),
    )
