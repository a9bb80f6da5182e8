"""LoRA adapters that PEFT saved, against PEFT's own merge; and adapters that wsr writes, loaded by PEFT."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

import wsr
from wsr.cli import main
from wsr.data.dataset import Split
from wsr.data.image_processor import CroppingProcessor
from wsr.data.texts import Texts
from wsr.models.huggingface.weights import to_huggingface
from wsr.region.region import Region

CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=24,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[BertModel, Path]:
    """A small BERT, and its folder."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    model = BertModel(CONFIG, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(35))]
    BertTokenizerFast({word: number for number, word in enumerate(words)}).save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"query": 2}, "alpha_pattern": {"value": 5}},
        {"target_modules": "all-linear"},
    ],
    ids=["plain", "rank-stabilised", "patterns", "all-linear"],
)
def test_an_adapter_becomes_what_peft_merges(
    base: tuple[BertModel, Path], tmp_path: Path, options: dict[str, object]
) -> None:
    model, folder = base
    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]} | options
    tuned = get_peft_model(copy.deepcopy(model), LoraConfig(**settings))
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:  # zero at the start
            torch.nn.init.normal_(weights, std=0.02)
    tuned.save_pretrained(tmp_path / "adapter")

    checkpoint = wsr.load(folder)
    store = wsr.Store.create_for(tmp_path / "store", checkpoint)
    member = wsr.import_(tmp_path / "adapter", store)

    expected = tuned.merge_and_unload().state_dict()
    for name, ours in to_huggingface(checkpoint.model, store.load(member.name)[0]).items():
        np.testing.assert_allclose(ours, expected[name].numpy(), atol=1e-6, err_msg=name)


SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SIZES |= {"max_position_embeddings": 24, "pad_token_id": 0, "initializer_range": 0.2}
CLASSIFIERS = {
    "bert": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "gpt2": ["c_attn"],
    "llama": ["q_proj", "v_proj"],
    "albert": ["query", "value"],
    "roberta": ["query", "value"],
    "electra": ["query", "value"],
    "mpnet": ["attn.q", "attn.v"],
    "modernbert": ["Wqkv", "Wo", "Wi"],
    "deberta-v2": ["query_proj", "value_proj"],
}


@pytest.mark.parametrize("whole", [True, False], ids=["base with the parts of a head", "bare base"])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_s_logits_come_back_or_are_refused(
    base: tuple[BertModel, Path], tmp_path: Path, kind: str, whole: bool
) -> None:
    """PEFT saves a classifier's last layer only; what is before it is the base's, if the base has it."""
    auto = transformers.AutoModelForSequenceClassification
    model = _random_model(kind, auto)
    bare = model.base_model
    if not whole and getattr(bare, "pooler", None) is not None:
        bare.pooler = None
    (model if whole else bare).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base[1]).save_pretrained(tmp_path / "base")
    if not whole:
        model = auto.from_pretrained(tmp_path / "base", num_labels=3).eval()
    lacking = not whole and kind in ("bert", "albert", "modernbert", "deberta-v2")
    options = {"target_modules": CLASSIFIERS[kind], "task_type": "SEQ_CLS"}
    _compare_logits(tmp_path, model, auto, options, refused=lacking)


@pytest.mark.parametrize(
    ("kind", "task", "options"),
    [
        ("modernbert", "QuestionAnswering", {"task_type": "QUESTION_ANS"}),  # PEFT knows its last layer by another name
        ("bert", "SequenceClassification", {}),
        ("distilbert", "SequenceClassification", {}),
        ("gpt2", "QuestionAnswering", {}),
        ("bert", "SequenceClassification", {"task_type": "SEQ_CLS", "bias": "all"}),
    ],
)
def test_a_last_layer_that_peft_does_not_save_is_the_base_s(
    base: tuple[BertModel, Path], tmp_path: Path, kind: str, task: str, options: dict[str, object]
) -> None:
    auto = getattr(transformers, f"AutoModelFor{task}")
    model = _random_model(kind, auto)
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base[1]).save_pretrained(tmp_path / "base")
    _compare_logits(tmp_path, model, auto, {"target_modules": CLASSIFIERS[kind]} | options)


def _random_model(kind: str, auto: type) -> Any:
    torch.manual_seed(0)
    more: dict[str, object] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    labels = {} if "Question" in auto.__name__ else {"num_labels": 3}
    config = transformers.AutoConfig.for_model(kind, **SIZES, **(more if kind == "deberta-v2" else {}), **labels)
    model = auto.from_config(config).eval()  # type: ignore[attr-defined]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _compare_logits(place: Path, model: Any, auto: Any, options: dict[str, Any], *, refused: bool = False) -> None:
    """Compares a random adapter of a model with its export, or expects that the export is refused."""
    tuned = get_peft_model(model, LoraConfig(r=4, **options)).eval()
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    tuned.save_pretrained(place / "adapter")
    ids = torch.tensor([[2, 10, 11, 12, 3]])
    expected = _all_logits(tuned, ids)

    store = wsr.Store.create_for(place / "store", wsr.load(place / "base"))
    member = wsr.import_(place / "adapter", store)
    status = main(["export", member.name, "--head", f"--store={place / 'store'}", f"--to={place / 'out'}"])
    assert status == int(refused)
    if not refused:
        again, info = auto.from_pretrained(place / "out", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        for found, own in zip(_all_logits(again.eval(), ids), expected, strict=True):
            np.testing.assert_allclose(found, own, atol=1e-5)


def _all_logits(model: Any, ids: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        found = model(input_ids=ids)
    return [found[name].numpy() for name in found if name.endswith("logits")]


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": r".*q_proj|lm_head"},
        {"target_modules": ["q_proj", "lm_head"], "exclude_modules": ["v_proj"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
    ],
    ids=["head", "head by pattern", "head with others left out", "embedding"],
)
def test_heads_and_embeddings_become_what_peft_merges(
    base: tuple[BertModel, Path], tmp_path: Path, options: dict[str, object]
) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("llama", **SIZES, num_key_value_heads=2, tie_word_embeddings=False)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base[1]).save_pretrained(tmp_path / "base")
    tuned = get_peft_model(model, LoraConfig(**({"r": 4, "lora_alpha": 8} | options)))  # type: ignore[arg-type]
    for name, weights in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    checkpoint = wsr.load(tmp_path / "base")
    member = wsr.import_(tmp_path / "adapter", wsr.Store.create_for(tmp_path / "store", checkpoint))
    params = wsr.Store.open(tmp_path / "store").load(member.name)[0]
    expected = tuned.merge_and_unload().state_dict()
    for name, ours in to_huggingface(checkpoint.model, params).items():
        theirs = expected[name if name == "lm_head.weight" else f"model.{name}"]
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5, err_msg=name)


# Adapters out

IDS = torch.tensor([[2, 10, 11, 12, 3], [2, 20, 9, 30, 3]])


def _adapters(
    base: tuple[BertModel, Path], place: Path, settings: dict[str, dict[str, object]]
) -> list[torch.nn.Module]:
    """Saves and imports an adapter for each entry; returns the models as PEFT merges them."""
    model, folder = base
    store = wsr.Store.create_for(place / "store", wsr.load(folder))
    merged = []
    for seed, (name, options) in enumerate(settings.items(), start=1):
        torch.manual_seed(seed)
        defaults = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]}
        tuned = get_peft_model(copy.deepcopy(model), LoraConfig(**(defaults | options)))  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        tuned.save_pretrained(place / name)
        wsr.import_(place / name, store)
        merged.append(tuned.merge_and_unload())
    return merged


def _hidden(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model.eval()(input_ids=IDS)[0])


PAIRS = {
    "unequal ranks": ({"r": 2}, {"r": 5, "target_modules": ["query", "dense"]}),
    "rank-stabilised": ({"use_rslora": True}, {}),
    "patterns": ({"rank_pattern": {"query": 2}, "alpha_pattern": {"value": 5}}, {"r": 3}),
    "biases": ({"bias": "all"}, {"bias": "lora_only"}),
    "norms and an embedding": ({"modules_to_save": ["LayerNorm"]}, {"target_modules": ["word_embeddings", "query"]}),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_merge_of_adapters_is_an_adapter(base: tuple[BertModel, Path], tmp_path: Path, pair: str) -> None:
    """Against the weighted sum of the models as PEFT merges them."""
    model, folder = base
    first, second = _adapters(base, tmp_path, dict(zip(("first", "second"), PAIRS[pair], strict=True)))
    call = [f"--store={tmp_path / 'store'}", "--method=task_arithmetic", "--weights=0.7,-0.2", "--scale=1"]
    assert main(["merge", *call, "--as=adapter", f"--to={tmp_path / 'adapter'}"]) == 0
    assert main(["merge", *call, f"--to={tmp_path / 'whole'}"]) == 0

    expected = copy.deepcopy(model)
    with torch.no_grad():
        for name, own in expected.named_parameters():
            changes = [
                weight * (dict(m.named_parameters())[name] - own) for m, weight in ((first, 0.7), (second, -0.2))
            ]
            own.add_(sum(changes))
    found = PeftModel.from_pretrained(BertModel.from_pretrained(folder, add_pooling_layer=False), tmp_path / "adapter")
    np.testing.assert_allclose(_hidden(found), _hidden(expected), atol=1e-5)
    whole = BertModel.from_pretrained(tmp_path / "whole", add_pooling_layer=False)
    np.testing.assert_allclose(_hidden(found), _hidden(whole), atol=1e-5)
    assert np.abs(_hidden(found) - _hidden(model)).max() > 1e-3


@pytest.mark.parametrize("options", [{}, *PAIRS["patterns"], *PAIRS["biases"], *PAIRS["norms and an embedding"]])
def test_one_adapter_comes_back_as_itself(
    base: tuple[BertModel, Path], tmp_path: Path, options: dict[str, object]
) -> None:
    (merged,) = _adapters(base, tmp_path, {"only": options})
    command = ["export", "only", f"--store={tmp_path / 'store'}", "--as=adapter", f"--to={tmp_path / 'again'}"]
    assert main(command) == 0
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("only", "again"))
    # PEFT also saves a copy of an embedding that it adapts, and biases that did not move.
    assert after.keys() <= before.keys()
    assert {name for name in before if "lora_" in name} == {name for name in after if "lora_" in name}
    for name, own in after.items():
        if "lora_A" in name or "embedding_A" in name:
            np.testing.assert_array_equal(own, before[name], err_msg=name)
    found = PeftModel.from_pretrained(BertModel.from_pretrained(base[1], add_pooling_layer=False), tmp_path / "again")
    np.testing.assert_allclose(_hidden(found), _hidden(merged), atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "gpt2", "modernbert", "t5"])
def test_an_extracted_adapter_has_the_logits_of_the_model(
    base: tuple[BertModel, Path], tmp_path: Path, kind: str
) -> None:
    """At full rank; the classifier comes along."""
    torch.manual_seed(0)
    few = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 40}
    sizes = {
        "gpt2": {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24, "pad_token_id": 0},
        "llama": SIZES | {"num_key_value_heads": 2},
        "t5": few,
    }.get(kind, SIZES)
    config = transformers.AutoConfig.for_model(kind, **sizes, num_labels=3)
    model_class = transformers.T5EncoderModel if kind == "t5" else transformers.AutoModelForSequenceClassification
    whole = (model_class if kind == "t5" else model_class.from_config)(config).eval()
    (whole if kind == "t5" else whole.base_model).save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    whole.save_pretrained(tmp_path / "tuned")
    for name in ("base", "tuned"):
        AutoTokenizer.from_pretrained(base[1]).save_pretrained(tmp_path / name)
    adapter = wsr.extract(tmp_path / "tuned", tmp_path / "base", tmp_path / "adapter", rank=40)
    assert adapter.error < 1e-5
    load = {} if kind == "t5" else {"num_labels": 3}
    loaded = PeftModel.from_pretrained(model_class.from_pretrained(tmp_path / "base", **load), tmp_path / "adapter")
    np.testing.assert_allclose(_hidden(loaded), _hidden(whole), atol=1e-5)


def test_an_adapter_of_a_tied_token_table_comes_in_and_out(base: tuple[BertModel, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("llama", **SIZES, num_key_value_heads=2, tie_word_embeddings=True)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base[1]).save_pretrained(tmp_path / "base")
    tuned = get_peft_model(
        model,
        LoraConfig(r=3, target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True, task_type="CAUSAL_LM"),
    ).eval()
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "embed_tokens.lora" in name or "q_proj.lora" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    tuned.save_pretrained(tmp_path / "adapter")
    store = wsr.Store.create_for(tmp_path / "store", wsr.load(tmp_path / "base"))
    wsr.import_(tmp_path / "adapter", store)
    for flags, name in ((["--as=adapter"], "again"), ([], "whole")):
        assert main(["export", "adapter", f"--store={tmp_path / 'store'}", *flags, f"--to={tmp_path / name}"]) == 0
    expected = _hidden(tuned)
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    np.testing.assert_allclose(_hidden(whole), expected, atol=1e-5)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        found = PeftModel.from_pretrained(again, tmp_path / "again")
    np.testing.assert_allclose(_hidden(found), expected, atol=1e-5)


def test_an_extracted_adapter_of_a_language_model_with_a_tied_head(
    base: tuple[BertModel, Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("llama", **SIZES, num_key_value_heads=2, tie_word_embeddings=True)
    whole = transformers.AutoModelForCausalLM.from_config(config).eval()
    whole.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    whole.save_pretrained(tmp_path / "tuned")
    for name in ("base", "tuned"):
        AutoTokenizer.from_pretrained(base[1]).save_pretrained(tmp_path / name)
    wsr.extract(tmp_path / "tuned", tmp_path / "base", tmp_path / "adapter", rank=40)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(again, tmp_path / "adapter")
    np.testing.assert_allclose(_hidden(loaded), _hidden(whole), atol=1e-5)


@pytest.mark.parametrize(("kind", "targets"), [("gpt2", ["c_attn", "c_fc"]), ("llama", ["q_proj", "down_proj"])])
def test_a_point_between_adapters_is_evaluated_from_their_factors_and_has_the_loss_of_peft(
    base: tuple[BertModel, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    targets: list[str],
) -> None:
    """PEFT joins the factors of adapters too (``cat``); on our side no adapter is made dense."""
    torch.manual_seed(0)
    more = (
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24} if kind == "gpt2" else {"num_key_value_heads": 2}
    )
    sizes = {"vocab_size": 40, "initializer_range": 0.2} if kind == "gpt2" else SIZES
    config = transformers.AutoConfig.for_model(kind, **sizes, **more, tie_word_embeddings=kind == "gpt2")
    whole = transformers.AutoModelForCausalLM.from_config(config).eval()
    whole.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base[1]).save_pretrained(tmp_path / "base")
    store = wsr.Store.create_for(tmp_path / "store", wsr.load(tmp_path / "base"))
    options = {"target_modules": targets, "task_type": "CAUSAL_LM", "fan_in_fan_out": kind == "gpt2"}
    tuned = get_peft_model(whole, LoraConfig(r=3, lora_alpha=6, **options), adapter_name="first")
    tuned.add_adapter("second", LoraConfig(r=2, lora_alpha=5, **options))
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:  # zero at the start
            torch.nn.init.normal_(weights, std=0.2)
    tuned.save_pretrained(tmp_path / "adapters")
    for name in ("first", "second"):
        wsr.import_(tmp_path / "adapters" / name, store)

    def never(store: wsr.Store, name: str) -> None:
        raise AssertionError(f"{name} was made dense")

    monkeypatch.setattr("wsr.region.region._load_encoder", never)
    region = Region.from_store(store)
    draw = np.random.default_rng(0)
    ids = [draw.integers(5, 40, size=length).astype(np.int32) for length in (9, 5, 12)]
    flat, offsets = np.concatenate(ids), np.cumsum([0, *map(len, ids)]).astype(np.int64)
    texts = Texts("random", Split(flat, np.zeros_like(flat), offsets, np.zeros(3, np.int32)), np.arange(3), "random")
    for number, point in enumerate(([0.3, 0.7], [1.4, -0.5])):
        weights = dict(zip(("first", "second"), point, strict=True))
        tuned.add_weighted_adapter(list(weights), list(weights.values()), f"mix{number}", combination_type="cat")
        tuned.set_adapter(f"mix{number}")
        with torch.no_grad():
            rows = [torch.tensor(own[None].astype(np.int64)) for own in ids]
            expected = [float(tuned(input_ids=row, labels=row).loss) for row in rows]
        found = wsr.evaluate_language_model(region, np.array([weights[name] for name in region.names]), texts)
        np.testing.assert_allclose(found.losses[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_an_adapter_of_clip_comes_in_and_out(tmp_path: Path, kind: str) -> None:
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"vision_config": {**vision, "image_size": 8, "patch_size": 4, "projection_dim": 12}}
    text = {**vision, "vocab_size": 40, "projection_dim": 12, "max_position_embeddings": 24}
    torch.manual_seed(0)
    whole = transformers.CLIPModel(transformers.CLIPConfig(**sizes, text_config=text, projection_dim=12)).eval()
    whole.save_pretrained(tmp_path / "base")
    CroppingProcessor(8, (0.5,) * 3, (0.5,) * 3).save_pretrained(tmp_path / "base")
    model = getattr(transformers, kind).from_pretrained(tmp_path / "base").eval()
    targets = r"(.*\.)?encoder\.layers\.\d+\.(self_attn\.q_proj|mlp\.fc1)" if kind != "CLIPModel" else (
        r"vision_model\.encoder\.layers\.\d+\.(self_attn\.q_proj|mlp\.fc1)"
    )  # fmt: skip
    tuned = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, target_modules=targets))
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:  # zero at the start
            torch.nn.init.normal_(weights, std=0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    store = f"--store={tmp_path / 'store'}"
    assert main(["import", str(tmp_path / "adapter"), store, f"--base={tmp_path / 'base'}", "--dataset=x"]) == 0
    assert main(["export", "adapter", store, f"--to={tmp_path / 'out'}"]) == 0
    assert main(["export", "adapter", store, "--as=adapter", f"--to={tmp_path / 'again'}"]) == 0
    pixels = torch.randn(2, 3, 8, 8)
    merged = tuned.merge_and_unload()
    tower = merged if kind == "CLIPVisionModel" else merged.vision_model
    again = PeftModel.from_pretrained(
        transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path / "base"), tmp_path / "again"
    ).merge_and_unload()
    out = transformers.CLIPModel.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected = tower(pixels).pooler_output.numpy()
        for found in (out.vision_model, again.vision_model):
            np.testing.assert_allclose(found.eval()(pixels).pooler_output.numpy(), expected, rtol=0, atol=1e-5)
        assert np.abs(whole.vision_model(pixels).pooler_output.numpy() - expected).max() > 1e-3
