"""LoRA adapters in PEFT's files: merged by hand in torch and NumPy, and refused in one line."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from models_support import every_token, one_a_row, random_params, random_texts
from safetensors.numpy import load_file, save_file

from wsr import models
from wsr.errors import WsrError
from wsr.exchange.member import read_member
from wsr.geometry.low_rank import add
from wsr.geometry.trees import flatten
from wsr.models import registry
from wsr.models.counterpart import Counterpart
from wsr.models.huggingface import read_adapter
from wsr.models.huggingface.weights import from_huggingface
from wsr.models.model import Model

SIZES = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 48, "max_position_embeddings": 20}
ATTENTION = "bert.encoder.layer.{}.attention.self.{}"
PLACES = {(layer, part): ATTENTION.format(layer, part) for layer in range(2) for part in ("query", "value")}
CONFIG = {
    "peft_type": "LORA",
    "peft_version": "0.17.0",
    "base_model_name_or_path": "some/bert",
    "task_type": "SEQ_CLS",
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "bias": "none",
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "target_modules": ["query", "value"],
    "modules_to_save": ["classifier"],
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "loftq_config": {},
    "megatron_core": "megatron.core",
    "use_rslora": False,
    "use_dora": False,
}
"""As PEFT 0.17 writes it, without most of the attributes that are not set."""


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@pytest.fixture
def model():
    return models.build("bert", {**models.architectures()["bert"].example, **SIZES})


@pytest.fixture
def base(model):
    return random_params(model)


def random_factors(seed, inputs, outputs, rank):
    random = np.random.default_rng(seed)
    return (0.3 * random.standard_normal(shape).astype(np.float32) for shape in ((rank, inputs), (outputs, rank)))


def adapter_tensors(rank=4):
    tensors = {}
    for number, module in enumerate(PLACES.values()):
        a, b = random_factors(number, 24, 24, rank)
        tensors |= {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    return tensors


def write(folder, tensors, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def moved(base, adapter):
    """What the leaves of the merged model differ by from the base, where they do."""
    leaves, origin = flatten(add(base, adapter.task_vector)), flatten(base)
    assert leaves.keys() == origin.keys()
    return {path: leaf - origin[path] for path, leaf in leaves.items() if not np.array_equal(leaf, origin[path])}


def kernel(layer, part):
    return f"layers/{layer}/attention/{part}/kernel"


# The same hidden states as torch's


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["BertModel", "BertForSequenceClassification", "RobertaForSequenceClassification"])
def test_hidden_states_of_an_adapter_merged_by_hand_in_torch(torch, tmp_path, kind):
    import transformers

    torch.manual_seed(0)
    name = "bert" if kind.startswith("Bert") else "roberta"
    config = transformers.AutoConfig.for_model(name, **SIZES, num_hidden_layers=2, num_attention_heads=4)
    theirs = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    prefix = "" if kind == "BertModel" else f"{name}."
    example = models.architectures()[name].example
    taken = {key: getattr(config, key) for key in example if hasattr(config, key)}
    ours = models.build(name, {**example, **taken, "pooling": "cls"})
    base, _ = from_huggingface(ours, {key: value.numpy().copy() for key, value in theirs.state_dict().items()})

    tensors = {}
    for number, end in enumerate(("attention.self.query", "attention.self.value", "output.dense")):
        for layer in range(2):
            module = f"{prefix}encoder.layer.{layer}.{end}"
            weight = theirs.get_submodule(module).weight
            rank, alpha = (2, 3) if end == "output.dense" else (4, 8)
            a, b = (torch.tensor(own) for own in random_factors(10 * number + layer, *weight.shape[::-1], rank))
            with torch.no_grad():
                weight.add_(alpha / rank * b @ a)
            tensors |= {
                f"base_model.model.{module}.lora_{side}.weight": own.numpy()
                for side, own in zip("AB", (a, b), strict=True)
            }
    folder = write(
        tmp_path,
        tensors,
        target_modules=["query", "value", r"layer.0.output.dense", r"layer.1.output.dense"],
        rank_pattern={r"layer\.\d\.output\.dense": 2},
        alpha_pattern={r"layer\.\d\.output\.dense": 3},
    )

    texts = random_texts(1, [9, 4, 13], 40)
    params = jax.tree.map(jnp.asarray, add(base, read_adapter(folder, ours, base).task_vector))
    encoder = theirs if kind == "BertModel" else getattr(theirs, name)
    for text in texts:
        batch = one_a_row([text], len(text[0]))
        found = ours.encode(params, every_token(batch))
        with torch.no_grad():
            expected = encoder(torch.tensor([text[0]])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(ours.encode(base, every_token(batch)) - expected).max() > 1e-2


# Scales, ranks, kinds of modules


@pytest.mark.parametrize(("changes", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0), ({"lora_alpha": 1}, 0.25)])
def test_the_leaves_move_by_scale_times_b_a(tmp_path, model, base, changes, scale):
    tensors = adapter_tensors()
    found = moved(base, read_adapter(write(tmp_path, tensors, **changes), model, base))
    assert found.keys() == {kernel(*place) for place in PLACES}
    for place, module in PLACES.items():
        a, b = (tensors[f"base_model.model.{module}.lora_{side}.weight"].astype(np.float64) for side in "AB")
        np.testing.assert_allclose(found[kernel(*place)], scale * (b @ a).T, atol=1e-5)


def test_a_pattern_is_of_the_end_of_a_name_and_the_first_that_fits_counts(tmp_path, model, base):
    tensors = adapter_tensors()
    for side, shape in (("A", (2, 24)), ("B", (24, 2))):
        tensors[f"base_model.model.{PLACES[1, 'query']}.lora_{side}.weight"] = np.ones(shape, np.float32)
    patterns = {"rank_pattern": {"layer.1.attention.self.query": 2}, "alpha_pattern": {"1.+query": 6, "query": 100}}
    found = read_adapter(write(tmp_path, tensors, **patterns), model, base).task_vector
    np.testing.assert_allclose(found[kernel(1, "query")].b, 6 / 2)
    own = tensors[f"base_model.model.{PLACES[0, 'query']}.lora_B.weight"]
    np.testing.assert_allclose(found[kernel(0, "query")].b, 100 / 4 * own.T, rtol=1e-6)
    own = tensors[f"base_model.model.{PLACES[1, 'value']}.lora_B.weight"]
    np.testing.assert_allclose(found[kernel(1, "value")].b, 8 / 4 * own.T, rtol=1e-6)


def test_an_embedding_moves_too(tmp_path, model, base):
    a, b = random_factors(3, 40, 24, 4)
    name = "base_model.model.bert.embeddings.word_embeddings.lora_embedding_"
    folder = write(tmp_path, {f"{name}A": a, f"{name}B": b}, target_modules=["word_embeddings"])
    found = moved(base, read_adapter(folder, model, base))
    np.testing.assert_allclose(found["embeddings/token/embedding"], 2.0 * (b @ a).T, atol=1e-5)


@pytest.mark.parametrize("said", [True, False])
def test_weights_that_lie_the_other_way_round(tmp_path, monkeypatch, said):
    """GPT-2's Conv1D keeps [inputs, outputs]; PEFT mends a wrong fan_in_fan_out when it wraps the module."""
    base = {"attention": {"kernel": np.zeros((6, 18), np.float32), "bias": np.zeros(18, np.float32)}}
    model = Model("conv", {}, 6, 8, lambda key: base, lambda params, batch, dropout_key=None: None)
    counterpart = Counterpart(
        model_type="conv",
        model_class="Conv",
        prefix="transformer.",
        taken=(),
        modules=lambda config: [("h.0.attn.c_attn", "attention", "conv1d")],
        dropped="score.weight",
    )
    architecture = registry.Architecture(lambda config: model, {}, counterpart)
    monkeypatch.setitem(registry._architectures, "conv", architecture)
    a, b = random_factors(0, 6, 18, 4)
    name = "base_model.model.transformer.h.0.attn.c_attn.lora_"
    tensors = {f"{name}A.weight": a, f"{name}B.weight": b, "base_model.model.score.weight": np.ones((2, 6), np.float32)}
    folder = write(tmp_path, tensors, target_modules=["c_attn"], fan_in_fan_out=said)
    adapter = read_adapter(folder, model, base)
    np.testing.assert_allclose(moved(base, adapter)["attention/kernel"], 2.0 * (b @ a).T, atol=1e-5)
    assert set(adapter.head) == {"score.weight"}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_any_float_is_read_as_float32(tmp_path, model, base, dtype):
    tensors = {name: own.astype(dtype) for name, own in adapter_tensors().items()}
    found = read_adapter(write(tmp_path, tensors), model, base).task_vector[kernel(0, "query")]
    assert found.a.dtype == found.b.dtype == np.float32
    own = tensors[f"base_model.model.{PLACES[0, 'query']}.lora_A.weight"]
    np.testing.assert_array_equal(found.a, own.astype(np.float32).T)


def test_heads_are_handed_over_apart_and_the_base_is_named(tmp_path, model, base):
    head = {"classifier.weight": np.ones((2, 24), np.float32), "classifier.bias": np.zeros(2, np.float32)}
    extra = {f"base_model.model.{name}": tensor for name, tensor in head.items()}
    adapter = read_adapter(write(tmp_path, adapter_tensors() | extra), model, base)
    assert adapter.head.keys() == head.keys()
    np.testing.assert_array_equal(adapter.head["classifier.weight"], head["classifier.weight"])
    assert (adapter.base_name, adapter.model_class) == ("some/bert", "BertForSequenceClassification")
    assert adapter.prefix == "bert."
    assert len(adapter.task_vector) == 4


def pooler(rank=None):
    """A pooler of a base, and an adapter's factors of it."""
    if rank is None:
        random = np.random.default_rng(9)
        return {
            "pooler.dense.weight": random.standard_normal((24, 24)).astype(np.float32),
            "pooler.dense.bias": random.standard_normal(24).astype(np.float32),
        }
    a, b = random_factors(8, 24, 24, rank)
    name = "base_model.model.bert.pooler.dense.lora_"
    return {f"{name}A.weight": a, f"{name}B.weight": b}


def test_a_pooler_that_was_not_trained_is_the_base_s(tmp_path, model, base):
    folder = write(tmp_path, adapter_tensors() | {"base_model.model.classifier.weight": np.ones((2, 24), np.float32)})
    adapter = read_adapter(folder, model, base, pooler())
    for name, tensor in pooler().items():
        np.testing.assert_array_equal(adapter.head[f"bert.{name}"], tensor)
    assert adapter.lacking == ()
    without = read_adapter(folder, model, base)
    assert without.lacking == ("bert.pooler.dense",)


def test_an_adapted_pooler_is_merged_into_the_base_s(tmp_path, model, base):
    targets = ["query", "value", "pooler.dense"]
    folder = write(tmp_path, adapter_tensors() | pooler(rank=4), target_modules=targets)
    adapter = read_adapter(folder, model, base, pooler())
    a, b = (own.astype(np.float64) for own in pooler(rank=4).values())
    expected = pooler()["pooler.dense.weight"] + 2.0 * b @ a
    np.testing.assert_allclose(adapter.head["bert.pooler.dense.weight"], expected, atol=1e-5)
    np.testing.assert_array_equal(adapter.head["bert.pooler.dense.bias"], pooler()["pooler.dense.bias"])
    assert not any("lora" in name for name in adapter.head)
    assert len(adapter.task_vector) == 4
    without = read_adapter(folder, model, base)
    assert set(without.lacking) == {"bert.pooler.dense", "classifier"}
    assert not any("lora" in name for name in without.head)


@pytest.mark.parametrize(
    ("task", "last"), [("SEQ_CLS", "classifier"), ("TOKEN_CLS", "classifier"), ("QUESTION_ANS", "qa_outputs")]
)
def test_a_last_layer_that_was_not_trained_is_the_base_s(tmp_path, model, base, task, last):
    folder = write(tmp_path, adapter_tensors(), task_type=task, auto_mapping=None)
    own = {f"{last}.weight": np.ones((2, 24), np.float32), f"{last}.bias": np.ones(2, np.float32)}
    adapter = read_adapter(folder, model, base, pooler() | own)
    assert adapter.lacking == ()
    for name, tensor in own.items():
        np.testing.assert_array_equal(adapter.head[name], tensor)
    assert read_adapter(folder, model, base, pooler()).lacking == (last,)


def test_the_wrapper_of_a_trained_module_leaves_no_name_of_its_own(tmp_path, model, base):
    """PEFT saves three copies of a classifier's bias if biases are trained too."""
    trained, before = np.ones(2, np.float32), np.zeros(2, np.float32)
    copies = {"classifier.bias": trained, "classifier.modules_to_save.bias": trained}
    copies |= {"classifier.original_module.bias": before, "classifier.weight": np.ones((2, 24), np.float32)}
    saved = {f"base_model.model.{name}": tensor for name, tensor in copies.items()}
    adapter = read_adapter(write(tmp_path, adapter_tensors() | saved, bias="all"), model, base, pooler())
    assert adapter.head.keys() - {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} == {
        "classifier.weight",
        "classifier.bias",
    }
    np.testing.assert_array_equal(adapter.head["classifier.bias"], trained)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_a_copy_of_the_base_s_embedding_is_compared_and_left_out(tmp_path, model, base, dtype):
    a, b = random_factors(3, 40, 24, 4)
    name = "base_model.model.bert.embeddings.word_embeddings"
    table = np.asarray(base["embeddings"]["token"]["embedding"]).astype(dtype)
    factors = {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b}
    folder = write(tmp_path, factors | {f"{name}.base_layer.weight": table}, target_modules=["word_embeddings"])
    found = moved(base, read_adapter(folder, model, base))
    np.testing.assert_allclose(found["embeddings/token/embedding"], 2.0 * (b @ a).T, atol=1e-5)
    write(tmp_path, factors | {f"{name}.base_layer.weight": table + 1}, target_modules=["word_embeddings"])
    with pytest.raises(WsrError, match=r"base_layer\.weight differs from the base's .* the base is another"):
        read_adapter(folder, model, base)


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": r".*q_proj|lm_head"},
        {"target_modules": ["q_proj", "lm_head"], "exclude_modules": ["v_proj"]},
    ],
    ids=["by name", "by pattern", "with others left out"],
)
def test_a_language_modelling_head_moves_too(tmp_path, changes):
    example = models.architectures()["llama"].example
    model = models.build("llama", example)
    base = random_params(model)
    modules = {
        "lm_head": (16, 40),
        **{f"model.layers.{layer}.self_attn.q_proj": (16, 16) for layer in range(example["num_hidden_layers"])},
    }
    tensors = {}
    for number, (module, shape) in enumerate(modules.items()):
        a, b = random_factors(number, *shape, 4)
        tensors |= {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    folder = write(tmp_path, tensors, task_type="CAUSAL_LM", modules_to_save=None, **changes)
    adapter = read_adapter(folder, model, base)
    a, b = (tensors[f"base_model.model.lm_head.lora_{side}.weight"].astype(np.float64) for side in "AB")
    np.testing.assert_allclose(moved(base, adapter)["head/kernel"], 2.0 * (b @ a).T, atol=1e-5)
    assert adapter.head == {}

    tied = models.build("llama", {**example, "tie_word_embeddings": True})
    with pytest.raises(WsrError, match="it adapts lm_head, which the base ties to the token embedding"):
        read_adapter(folder, tied, random_params(tied))


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_table_to_which_a_head_is_tied_moves_both_and_this_is_told(tmp_path, tied):
    model = models.build("llama", {**models.architectures()["llama"].example, "tie_word_embeddings": tied})
    base = models.Checkpoint(model, random_params(model), None, name="base")
    a, b = random_factors(3, model.config["vocab_size"], 16, 4)
    name = "base_model.model.model.embed_tokens.lora_embedding_"
    folder = write(tmp_path, {f"{name}A": a, f"{name}B": b}, task_type="CAUSAL_LM", target_modules=["embed_tokens"])
    told = [note for note in read_member(folder, base).notes if "the head moves with it" in note]
    assert len(told) == int(tied)


# Refusals


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type = 'IA3' is not supported; known: 'LORA'"),
        ({"use_dora": True}, "unsupported: use_dora = True"),
        ({"lora_bias": True}, "unsupported: lora_bias = True"),
        ({"init_lora_weights": "pissa"}, "unsupported: init_lora_weights = 'pissa'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"something_new": 1}, "unsupported: something_new = 1"),
        ({"r": "8"}, "not a valid LoRA config: r = '8'"),
        ({"r": 0}, "rank 0"),
        ({"target_modules": "(query"}, "not a valid regular expression"),
    ],
)
def test_what_a_config_says_and_is_not_understood_is_refused_by_name(tmp_path, model, base, changes, said):
    with pytest.raises(WsrError) as caught:
        read_adapter(write(tmp_path, adapter_tensors(), **changes), model, base)
    assert said in str(caught.value)
    assert "adapter_config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_with_the_tensors_is_said_at_once(tmp_path, model, base):
    tensors = adapter_tensors()
    names = {(place, side): f"base_model.model.{PLACES[place]}.lora_{side}.weight" for place in PLACES for side in "AB"}
    del tensors[names[(0, "query"), "B"]]
    for side in "AB":
        del tensors[names[(0, "value"), side]]
    tensors[names[(1, "query"), "A"]] = np.zeros((8, 24), np.float32)
    tensors[names[(1, "value"), "B"]] = np.zeros((24, 4), np.int32)
    tensors["base_model.model.bert.embeddings.LayerNorm.weight"] = np.ones(24, np.float32)
    tensors["base_model.model.bert.encoder.layer.7.output.dense.lora_A.weight"] = np.ones((4, 48), np.float32)
    with pytest.raises(WsrError) as caught:
        read_adapter(write(tmp_path, tensors), model, base)
    for part in (
        f"missing lora_B of {PLACES[0, 'query']}",
        f"missing lora_A and lora_B of {PLACES[0, 'value']}",
        f"shape of {names[(1, 'query'), 'A']} is (8, 24), expected (4, 24)",
        f"dtype of {names[(1, 'value'), 'B']} is int32, expected a float",
        "base_model.model.bert.embeddings.LayerNorm.weight differs from the base's embeddings.LayerNorm.weight",
        "unexpected base_model.model.bert.encoder.layer.7.output.dense.lora_A.weight",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_modules_left_out_on_purpose_are_not_missed(tmp_path, model, base):
    tensors = {name: own for name, own in adapter_tensors().items() if ".layer.0." not in name}
    with pytest.raises(WsrError, match=r"missing lora_A and lora_B of bert\.encoder\.layer\.0\.attention\.self\.query"):
        read_adapter(write(tmp_path, tensors), model, base)
    for changes in (
        {"layers_to_transform": [1]},
        {"exclude_modules": ["layer.0.attention.self.query", "layer.0.attention.self.value"]},
        {"target_modules": r".*\.layer\.1\..*\.(query|value)"},
    ):
        assert len(read_adapter(write(tmp_path, tensors, **changes), model, base).task_vector) == 2


def test_an_adapter_of_a_head_alone_is_refused(tmp_path, model, base):
    tensors = {"base_model.model.classifier.weight": np.ones((2, 24), np.float32)}
    with pytest.raises(WsrError, match="it has no lora_A and lora_B for the encoder"):
        read_adapter(write(tmp_path, tensors, target_modules=["classifier"]), model, base)


def test_pickles_and_broken_files_are_refused(tmp_path, model, base):
    folder = write(tmp_path, adapter_tensors())
    whole = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(whole[:100])
    with pytest.raises(WsrError, match="not readable as safetensors"):
        read_adapter(folder, model, base)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(WsrError, match=r"expected adapter_model\.safetensors, found none"):
        read_adapter(folder, model, base)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(WsrError, match=r"found adapter_model\.bin .* none is ever read"):
        read_adapter(folder, model, base)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(WsrError, match=r"adapter_config\.json: no such file"):
        read_adapter(folder, model, base)


def test_the_base_and_the_file_stay_as_they_are(tmp_path, model, base):
    before = jax.tree.map(np.array, base)
    folder = write(tmp_path, adapter_tensors())
    params = add(base, read_adapter(folder, model, base).task_vector)
    for path, leaf in flatten(before).items():
        np.testing.assert_array_equal(flatten(base)[path], leaf)
    assert jax.tree.structure(params) == jax.tree.structure(dict(base))
    for name, tensor in adapter_tensors().items():
        np.testing.assert_array_equal(load_file(folder / "adapter_model.safetensors")[name], tensor)
