"""Published sizes of datasets and configs of checkpoints, for plans without a download."""

from collections.abc import Mapping
from typing import Any

from wsr.data.dataset import SPLITS
from wsr.data.splits import dealt
from wsr.errors import WsrError

ROWS: Mapping[str, tuple[int, int, int]] = {
    # Rows of train, validation and test as ``wsr.data.table`` reads them; 0: the source has no such split. All 36 were
    # checked a second time; only ISEAR's is counted in its file, the others were not counted here. Of AG News, Yahoo
    # Answers and DBpedia 3,000 texts are tested, as in the authors' released code; MNLI is tested on
    # validation_mismatched.
    "cola": (8_551, 0, 1_043),
    "mrpc": (3_668, 0, 408),
    "qqp": (363_846, 0, 40_430),
    "stsb": (5_749, 0, 1_500),
    "boolq": (9_427, 0, 3_270),
    "cb": (250, 0, 56),
    "copa": (400, 0, 100),
    "multirc": (27_243, 0, 4_848),
    "wic": (5_428, 0, 638),
    "wsc": (554, 0, 104),
    "mnli": (392_702, 0, 9_832),
    "qnli": (104_743, 0, 5_463),
    "rte": (2_490, 0, 277),
    "wnli": (635, 0, 71),
    "esnli": (549_367, 9_842, 9_824),
    "anli": (162_865, 3_200, 3_200),
    "ag_news": (120_000, 0, 3_000),
    "isear": (7_666, 0, 0),
    "yahoo_answers": (1_400_000, 0, 3_000),
    "dbpedia": (560_000, 0, 3_000),
    "20_newsgroups": (11_314, 0, 7_532),
    "trec_fine": (5_452, 0, 500),
    "trec_coarse": (5_452, 0, 500),
    "poem_sentiment": (892, 105, 104),
    "imdb": (25_000, 0, 25_000),
    "rotten_tomatoes": (8_530, 1_066, 1_066),
    "sst5": (8_544, 1_101, 2_210),
    "sst2": (67_349, 0, 872),
    "amazon_reviews": (200_000, 5_000, 5_000),
    "financial_phrasebank": (4_846, 0, 0),
    "tweet_emoji": (45_000, 5_000, 50_000),
    "tweet_emotion": (3_257, 374, 1_421),
    "tweet_hate": (9_000, 1_000, 2_970),
    "tweet_irony": (2_862, 955, 784),
    "tweet_offensive": (11_916, 1_324, 860),
    "tweet_sentiment": (45_615, 2_000, 12_284),
}

_ROBERTA = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "pooling": "cls",
}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_BERT = {**_ROBERTA, "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12}
_MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}

CONFIGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "roberta-base": ("roberta", {**_ROBERTA, **_BASE}),
    "roberta-large": ("roberta", {**_ROBERTA, **_LARGE}),
    "nyu-mll/roberta-base-1B-1": ("roberta", {**_ROBERTA, **_BASE}),
    "bert-base-uncased": ("bert", {**_BERT, **_BASE, "vocab_size": 30522}),
    "bert-large-uncased": ("bert", {**_BERT, **_LARGE, "vocab_size": 30522}),
    "minilm": ("bert", {**_BERT, **_MINILM, "vocab_size": 30522, "pooling": "mean"}),
}
"""Architecture and config of checkpoints, by name, as in their config.json."""


def split_sizes(name: str, finetune_share: float = 0.0) -> dict[str, int]:
    """Returns the number of texts in each split of a dataset that is used whole, assuming that no text occurs twice.

    Args:
      name: the dataset.
      finetune_share: see ``wsr.load_dataset``.

    Raises:
      WsrError: the dataset's size is not listed in ``ROWS``.

    Example:
      >>> from wsr.planning.published import split_sizes
      >>> sum(split_sizes("rte").values())
      2767
    """
    if name not in ROWS:
        raise WsrError(f"the number of texts in {name} is not known; plan by numbers: --members --texts --points ...")
    rows = dict(zip(("train", "validation", "test"), ROWS[name], strict=True))
    brought = {role: rows[role] for role in ("validation", "test") if rows[role]}
    return dealt(rows["train"], [split for split in SPLITS if split not in brought], finetune_share) | brought
