"""Classification heads for ``transformers``: an imported head as stored, or our linear head in equivalent form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.models.huggingface.config import counterpart_of
from wsr.models.model import Model
from wsr.types import Head


@dataclass(frozen=True, eq=False)
class ClassifierHead:
    """The tensors and config attributes that turn an encoder's folder into a classifier's."""

    prefix: str
    """Prefix of the encoder's tensor names."""
    tensors: Mapping[str, np.ndarray]
    """The head's float32 tensors, by their names in the file."""
    config: Mapping[str, Any]
    """Further attributes of the config: architectures, id2label, ..."""


TANH_CLASSIFIERS: Mapping[str, tuple[str, str, str]] = {
    "bert": ("BertForSequenceClassification", "bert.pooler.dense", "classifier"),
    "roberta": ("RobertaForSequenceClassification", "classifier.dense", "classifier.out_proj"),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", "classifier.dense", "classifier.out_proj"),
    "albert": ("AlbertForSequenceClassification", "albert.pooler", "classifier"),
    "mpnet": ("MPNetForSequenceClassification", "classifier.dense", "classifier.out_proj"),
}
"""For each model type whose classifier computes ``W2 tanh(W1 x + b1) + b2`` of the first token x: its class, and the
names of the modules W1 and W2."""

_SMALL = 2.0**-13
"""The relative error of ``tanh(s x) / s`` against ``x`` is ``(s x)^2 / 3``, which is 5e-7 at |x| = 10. Scaling by a
power of two does not round."""


def linear_classifier(model: Model, head: Head, label_names: Sequence[str] = ()) -> ClassifierHead:
    """Returns a classifier of ``transformers`` whose logits are ``features @ kernel + bias``.

    The classifiers of ``transformers`` have a tanh between two layers. Here the first layer multiplies by a number so
    small that the tanh is the identity up to rounding, and the second layer divides by it. A head with a dense layer of
    its own becomes both layers.

    Args:
      model: the encoder.
      head: see ``wsr.geometry.linear_head.logits``. A head with one output is that of a regression.
      label_names: names of the classes; empty if they are not known.

    Raises:
      WsrError: no classifier of the architecture is known, or it pools the features otherwise than ``model``.
    """
    kind = counterpart_of(model).model_type
    if kind not in TANH_CLASSIFIERS:
        raise WsrError(
            f"{kind}: no classifier of transformers that computes a linear head is known, except for "
            f"{', '.join(TANH_CLASSIFIERS)}; export without --head"
        )
    pooling = model.config["pooling"]
    if pooling != "cls":
        raise WsrError(
            f"the head reads features pooled by {pooling!r}, but the classifiers of transformers for {kind} read the "
            "first token ('cls'); export without --head"
        )
    name, first, second = TANH_CLASSIFIERS[kind]
    kernel, bias = np.asarray(head["kernel"], np.float32), np.asarray(head["bias"], np.float32)
    dense, dense_bias = np.float32(_SMALL) * np.eye(model.hidden, dtype=np.float32), np.zeros(model.hidden, np.float32)
    if "dense_kernel" in head:
        dense, dense_bias = (np.asarray(head[f"dense_{name}"], np.float32) for name in ("kernel", "bias"))
    else:
        kernel = kernel / np.float32(_SMALL)
    tensors = {
        f"{first}.weight": dense.T,
        f"{first}.bias": dense_bias,
        f"{second}.weight": kernel.T,
        f"{second}.bias": bias,
    }
    spoken = label_names if len(label_names) == len(bias) else [f"LABEL_{number}" for number in range(len(bias))]
    names = dict(enumerate(spoken))
    config: dict[str, Any] = {"id2label": names, "label2id": {label: number for number, label in names.items()}}
    if len(bias) == 1:
        # Without it pipelines apply a sigmoid.
        config |= {"problem_type": "regression", "num_labels": 1}
    return ClassifierHead(counterpart_of(model).prefix, tensors, {"architectures": [name], **config})


def stored_classifier(head: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> ClassifierHead:
    """Returns an imported model's classification head as it was stored.

    Args:
      head: its tensors, by their names in the file.
      about: what ``wsr.exchange.member`` recorded of it at import: prefix and config attributes.

    Raises:
      WsrError: the head is incomplete.
    """
    if about.get("head_lacks"):
        raise WsrError(
            f"--head: its head needs {', '.join(about['head_lacks'])}, which neither the adapter nor its base holds; "
            "export without --head, or merge the adapter with PEFT and import the model"
        )
    config = dict(about["config"])
    if "id2label" in config:  # JSON keys are strings
        config["id2label"] = {int(number): label for number, label in config["id2label"].items()}
    return ClassifierHead(about["prefix"], {name: np.asarray(own, np.float32) for name, own in head.items()}, config)
