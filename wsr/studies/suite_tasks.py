"""The population and the data of a suite: fetched from the hub, and how its models are scored on them.

Vision towers are scored under zero-shot heads and decoders under the members' own classifiers; both are linear heads.
Text-to-text models are scored by the likelihoods of the answers to a question. Validation data is a part of ``train``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from wsr.data.choices import Choices, load_choices
from wsr.data.classes import is_empty
from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.data.records import Records, Source
from wsr.data.table import register
from wsr.engine.choices import evaluate_choices
from wsr.engine.settings import Settings
from wsr.engine.zero_shot import refuse_other_text_towers, with_unit_embeddings, zero_shot_head
from wsr.errors import WsrError
from wsr.exchange.importing import import_model
from wsr.geometry.sampling import corners
from wsr.merging.method import Given
from wsr.models.huggingface.hub import download
from wsr.models.load import load
from wsr.region.region import Member, Region
from wsr.runtime import strict_json
from wsr.runtime.atomic import write_atomically
from wsr.runtime.seeds import generator
from wsr.store import Store
from wsr.store.results import Results
from wsr.studies.merged_models import Model, under_heads
from wsr.studies.suites import Suite, Task
from wsr.types import Head

MAX_LENGTH = 512
"""Longest text in tokens, as the published models read them."""
FINETUNE_SHARE = 0.4
"""Share of the training split for methods that read texts. Validation gets 24 %, such as 500 of RTE's 2,490 texts."""
CLASSIFIER = "score.weight"
"""The classifier of ``GPT2ForSequenceClassification``, which has no bias."""


@dataclass(frozen=True)
class Sizes:
    """How much data of each task is used."""

    validation: int
    """Most validation texts or images, on which options are chosen; 0: all."""
    texts: int
    """Texts or images that methods read of what a member was fine-tuned on; 0: all."""
    test: int
    """Most test texts or images; 0: all."""


def fetched(suite: Suite, tasks: Sequence[Task], folder: Path) -> tuple[Store, list[str]]:
    """Returns the store of a suite's models, and the commit of each; models that it lacks are fetched from the hub.

    Args:
      suite: the suite.
      tasks: the tasks whose members are wanted.
      folder: the store; the commits are kept beside it.

    Raises:
      WsrError: if the hub does not give a model, or a model was not fine-tuned from the base.
    """
    file = folder.with_name("commits.json")
    commits: dict[str, str] = strict_json.parse(file.read_text(encoding="utf-8")) if file.exists() else {}

    def fetch(what: str, name: str, revision: str | None) -> Path:
        print(f"fetching {what}, {name}", flush=True)
        snapshot = download(name, revision)
        commits[name] = snapshot.name
        write_atomically(file, json.dumps(commits, indent=1).encode())
        return snapshot

    if Store.is_at(folder):
        store = Store.open(folder)
    else:
        base = load(fetch("the base", suite.base, suite.revision))
        store = Store.create_for(folder, replace(base, name=suite.base))
    for number, task in enumerate(tasks, start=1):
        if task.name not in store:
            fetch(f"member {number} of {len(tasks)}", task.member, None)
            import_model(task.member, store, name=task.name, dataset=task.name, family=task.data.family)
    return store, [f"{name}: commit {commit}" for name, commit in commits.items()]


def judge_of(
    suite: Suite, tasks: Sequence[Task], store: Store, results: Results, sizes: Sizes, folder: Path
) -> "Judge":
    """Returns what scores the models of a suite: see ``Judge``.

    Args:
      suite: the suite.
      tasks: its tasks.
      store: its models.
      results: finished points.
      sizes: how much data is used.
      folder: where the questions are written.
    """
    region = Region.from_store(store, names=[task.name for task in tasks])
    if suite.scored == "choices":
        return Answers(region, store.processor(), results, sizes, folder)
    if suite.scored == "zero_shot":
        refuse_other_text_towers(region)
        base = store.checkpoint()
        made = {task.name: zero_shot_head(base, task.data.label_names, task.templates) for task in tasks}
        heads = {name: head.on_unit_embeddings for name, head in made.items()}
        return Heads(with_unit_embeddings(region), store.processor(), heads, results, sizes)
    return Heads(region, store.processor(), {name: _classifier(store, name) for name in region.names}, results, sizes)


def _classifier(store: Store, name: str) -> Head:
    tensors = store.head(name)
    if CLASSIFIER not in tensors:
        raise WsrError(f"{name}: expected the classifier {CLASSIFIER}, found {', '.join(tensors) or 'no head'}")
    kernel = np.ascontiguousarray(np.asarray(tensors[CLASSIFIER]).T)
    return {"kernel": kernel, "bias": np.zeros(kernel.shape[1], np.float32)}


@dataclass(frozen=True, eq=False)
class Heads:
    """Scores models under one linear head for each task."""

    region: Region
    processor: Any
    """Tokenizer or image processor of the base."""
    by_task: Mapping[str, Head]
    results: Results
    sizes: Sizes

    def load(self, task: Task, *, test: bool) -> Dataset:
        """Returns the dataset; unless for the test, with one test text: the others need not stay in memory."""
        used = {"finetune": self.sizes.texts, "validation": self.sizes.validation, "test": self.sizes.test}
        wanted = {"probe": 1} | {split: most for split, most in used.items() if most}
        name = task.data.name
        if task.data.reads == "images":  # images that are not used are not even decoded
            train = 5 * max(used["finetune"], used["validation"]) if used["finetune"] and used["validation"] else 0
            name = f"{name}_{train}_{used['test']}"
            register(replace(task.data, name=name, source=Sampled(task.data.source, train, used["test"])))
        found = load_dataset(
            name,
            self.processor,
            max_length=MAX_LENGTH,
            sizes=wanted,
            at_most=True,
            finetune_share=FINETUNE_SHARE,
        )
        if self.by_task[task.name]["bias"].shape != (found.classes,):
            raise WsrError(f"{task.member}: its head does not have the {found.classes} classes of {task.name}")
        found = replace(found, name=task.name)
        return found if test else found.with_split("test", found.splits["test"].take(np.arange(1)))

    def outcomes(self, data: Mapping[str, Any], model: Model, name: str, split: str) -> Mapping[str, np.ndarray]:
        """Scores a model under the head of a task."""
        settings = Settings(results=self.results)
        return under_heads(self.region, {name: {name: self.by_task[name]}}, data, settings, model, name, split)

    def notes(self, data: Dataset) -> Sequence[str]:
        """Returns what was cut or left out, and which commit was read; not what concerns splits that do not score."""
        return [note for note in data.notes if not re.search("probe|finetune", note)]

    def given(self, data: Mapping[str, Any]) -> Given:
        """Returns the datasets and the heads."""
        return Given(own=data, heads=self.by_task, settings=Settings(results=self.results))


@dataclass(frozen=True, eq=False)
class Answers:
    """Scores text-to-text models by the likelihood of each answer to a question."""

    region: Region
    processor: Any
    results: Results
    sizes: Sizes
    folder: Path
    """Where the questions are written."""

    def load(self, task: Task, *, test: bool) -> Mapping[str, Choices]:
        """Returns the questions of the split."""
        records = task.data.source.read()
        tested = _questions(task, records["test"], self.sizes.test)
        if test:
            return {"test": self._tokenised(task, "test", tested)}
        seen = {row["question"] for row in tested}
        # Questions of the test split may occur in the training split; nothing is chosen on them.
        fresh = [row for row in _questions(task, records["train"], 0) if row["question"] not in seen]
        most = self.sizes.validation or len(fresh)
        order = generator(0, task.name, "validation questions").permutation(len(fresh))[:most]
        return {"validation": self._tokenised(task, "validation", [fresh[at] for at in sorted(order.tolist())])}

    def _tokenised(self, task: Task, split: str, questions: list[dict[str, Any]]) -> Choices:
        path = self.folder / f"{task.name}_{split}.jsonl"
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in questions).encode())
        return load_choices(path, self.processor, max_length=MAX_LENGTH, between="", encoder_decoder=True)

    def outcomes(self, data: Mapping[str, Any], model: Model, name: str, split: str) -> Mapping[str, np.ndarray]:
        """Scores a model by the likeliest answer of each question: also ``values``, its index, and ``labels``."""
        questions = data[name][split]
        alone = self.region.with_members([Member(model.name, "none", "none", model.key, model.load)])
        found = evaluate_choices(alone, corners(1), questions, settings=Settings(results=self.results))
        chosen = found.log_likelihoods[0].reshape(len(questions), -1).argmax(axis=1)
        right = questions.right - questions.first_answer
        hits = (chosen == right).astype(np.float64)
        return {"own_losses": found.losses[0], "right": hits, "values": chosen, "labels": right}

    def notes(self, data: Mapping[str, Choices]) -> Sequence[str]:
        """Returns how many questions were cut."""
        return data["test"].notes

    def given(self, data: Mapping[str, Any]) -> Given:
        """Returns nothing: methods that read texts need a linear head."""
        return Given()


Judge: TypeAlias = Heads | Answers
"""Scores the models of one suite: ``load`` reads the data of a task, ``outcomes`` scores a model on a split of it."""


def _questions(task: Task, table: Records, most: int) -> list[dict[str, Any]]:
    """Returns question, answers and the index of the right one, for each row or some that are drawn."""
    columns, labels = task.data.columns.of_texts, table.columns[task.data.columns.label]
    rows = []
    for at in _drawn(table, most):
        cells = {column: table.columns[column][at] for column in columns}
        if any(is_empty(cell) for cell in cells.values()):
            continue
        right = task.answers.index(f"{labels[at]:.1f}") if task.data.classes == 1 else int(labels[at])
        rows.append({"question": task.prompt.format(**cells), "choices": list(task.answers), "label": right})
    return rows


@dataclass(frozen=True)
class Sampled:
    """Some records of a source, always the same ones."""

    source: Source
    train: int
    """Most records of ``train`` and ``validation``; 0: all."""
    test: int
    """Most records of ``test``; 0: all."""

    def read(self) -> Mapping[str, Records]:
        """Returns the records by role."""
        found = self.source.read()
        return {role: _taken(table, self.test if role == "test" else self.train) for role, table in found.items()}


def _taken(table: Records, most: int) -> Records:
    drawn = _drawn(table, most)
    columns = {name: [cells[at] for at in drawn] for name, cells in table.columns.items()}
    return replace(table, columns=columns, rows=[table.rows[at] for at in drawn])


def _drawn(table: Records, most: int) -> list[int]:
    """Returns the indices of the records that are used, in order."""
    if not most or most >= len(table):
        return list(range(len(table)))
    return sorted(generator(0, table.origin, "sample").permutation(len(table))[:most].tolist())
