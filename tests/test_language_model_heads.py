"""Language-modelling heads, tied and untied: what a file holds decides, as in transformers."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
from incoming_folders import edit_config, rewrite
from models_support import one_a_row, random_texts
from oracles import counterpart, their_config

from wsr import models
from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.member import read_member
from wsr.models.huggingface.weights import to_huggingface

DECODERS = ("gpt2", "llama", "qwen3")  # Qwen2's heads are Qwen3's
ROWS = 112  # Qwen2's class of tokenizers adds an entry to the 108 of "tiny"

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@pytest.fixture
def family(torch, tiny, tmp_path):
    """Makes a base and a model near it, as folders, of a class of transformers and another."""

    def make(name, *, tied, member="ForCausalLM"):
        import transformers

        torch.manual_seed(0)
        stem = counterpart(name).model_class.removesuffix("Model")
        classes = {"ForCausalLM": "LMHeadModel"} if name == "gpt2" else {}
        config = their_config(name, vocab_size=ROWS, tie_word_embeddings=tied, pad_token_id=0)
        causal = getattr(transformers, stem + classes.get("ForCausalLM", "ForCausalLM"))(config).eval()
        causal.save_pretrained(tmp_path / "base")
        model = getattr(transformers, stem + classes.get(member, member)).from_pretrained(tmp_path / "base").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        model.save_pretrained(tmp_path / "member")
        for folder in ("base", "member"):
            tiny.processor.save_pretrained(tmp_path / folder)
        return tmp_path / "base", tmp_path / "member"

    return make


def _table(name):
    return counterpart(name).prefix + next(iter(counterpart(name).tied))


def _losses(torch, folder, ids):
    """The loss of each token but the first, by transformers."""
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder).eval()(torch.tensor([ids])).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none").numpy()


@pytest.mark.parametrize("name", DECODERS)
def test_a_head_that_differs_is_kept_although_the_config_ties_it(torch, family, tmp_path, name):
    folder, _ = family(name, tied=True)
    noise = np.random.default_rng(0).standard_normal
    rewrite(
        folder,
        lambda tensors: {
            **tensors,
            "lm_head.weight": tensors[_table(name)] + 0.1 * noise(tensors[_table(name)].shape).astype(np.float32),
        },
    )
    checkpoint = models.load(str(folder))
    ((ids, types),) = random_texts(3, [9], 100)
    expected = _losses(torch, folder, ids)
    losses = checkpoint.model.token_losses(checkpoint.params, one_a_row([(ids, types)], 9))
    np.testing.assert_allclose(losses[0, :-1], expected, atol=1e-5)
    models.export(checkpoint, tmp_path / "out")
    np.testing.assert_allclose(_losses(torch, tmp_path / "out", ids), expected, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_a_copy_of_the_table_is_no_head_of_its_own(family, name):
    folder, member = family(name, tied=True)
    rewrite(folder, lambda tensors: {**tensors, "lm_head.weight": tensors[_table(name)]})
    base = models.load(str(folder))
    assert "head" not in base.params
    assert not read_member(member, base).head


@pytest.mark.parametrize("name", DECODERS)
def test_a_tied_member_of_an_untied_base_has_its_table_as_head(family, name):
    folder, member = family(name, tied=False)
    edit_config(member, tie_word_embeddings=True)
    rewrite(member, lambda tensors: {own: leaf for own, leaf in tensors.items() if own != "lm_head.weight"})
    base = models.load(str(folder))
    incoming = read_member(member, base)
    assert any("tied to the token embedding" in note for note in incoming.notes)
    tensors = to_huggingface(base.model, incoming.params)
    np.testing.assert_array_equal(tensors["lm_head.weight"], tensors[next(iter(counterpart(name).tied))])


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("kind", ["ForSequenceClassification", "ForTokenClassification"])
def test_a_classifier_made_from_an_untied_language_model(family, name, kind):
    folder, member = family(name, tied=False, member=kind)
    base = models.load(str(folder))
    incoming = read_member(member, base)
    assert "no lm_head.weight in the file: taken from the base" in incoming.notes
    np.testing.assert_array_equal(incoming.params["head"]["kernel"], base.params["head"]["kernel"])
    assert any("score" in own or "classifier" in own for own in incoming.head)


@pytest.mark.parametrize("name", DECODERS[:2])
def test_an_untied_member_of_a_tied_base(torch, family, tmp_path, name, capsys):
    folder, member = family(name, tied=True)
    rewrite(member, lambda tensors: {**tensors, "lm_head.weight": tensors[_table(name)] + np.float32(0.01)})
    base = models.load(str(folder))
    with pytest.raises(WsrError, match=r"lm_head\.weight differs from the token embedding, and the base ties the two"):
        read_member(member, base)

    # A new store's base is untied; it takes tied members too, whichever comes first, and the same base again.
    store = f"--store={tmp_path / 'store'}"
    tied = shutil.copytree(folder, tmp_path / "tied")
    rewrite(tied, lambda tensors: {own: leaf + np.float32(0.01) for own, leaf in tensors.items()})
    assert main(["import", str(tied), str(member), store, f"--base={folder}", "--dataset=a"]) == 0, capsys.readouterr()
    assert main(["import", str(tied), store, f"--base={folder}", "--dataset=a", "--names=again"]) == 0
    ((ids, _),) = random_texts(3, [9], 100)
    for own, path in (("member", member), ("tied", tied)):
        assert main(["export", own, "--head", store, f"--to={tmp_path / 'out' / own}"]) == 0
        np.testing.assert_allclose(
            _losses(torch, tmp_path / "out" / own, ids), _losses(torch, path, ids), atol=1e-5, err_msg=own
        )


@pytest.mark.parametrize("name", DECODERS)
def test_a_file_that_holds_the_table_as_head_only(family, name):
    folder, member = family(name, tied=True)
    expected = read_member(member, models.load(str(folder)))

    def by_alias(tensors):
        return {("lm_head.weight" if own == _table(name) else own): leaf for own, leaf in tensors.items()}

    for own in (folder, member):
        rewrite(own, by_alias)
    found = read_member(member, models.load(str(folder)))
    assert found.kinship == expected.kinship
    assert found.head == expected.head == {}


def test_a_t5_without_its_shared_table(torch, tiny, tmp_path):
    import transformers

    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(their_config("t5", vocab_size=ROWS, decoder_start_token_id=0))
    theirs.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    expected = models.load(str(tmp_path)).params["token"]["embedding"]
    names = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]
    models.export(models.load(str(tmp_path)), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["is_encoder_decoder"] is True
    rewrite(tmp_path, lambda tensors: {**tensors, names[1]: tensors[names[0]] + np.float32(1)})
    with pytest.raises(WsrError, match=r"encoder\.embed_tokens\.weight differs from shared\.weight"):
        models.load(str(tmp_path))
    rewrite(tmp_path, lambda tensors: {name: own for name, own in tensors.items() if name != names[1]})
    for before, alias in pairwise(names):
        rewrite(tmp_path, lambda tensors, a=alias, b=before: {(a if n == b else n): t for n, t in tensors.items()})
        np.testing.assert_array_equal(models.load(str(tmp_path)).params["token"]["embedding"], expected)


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("bert", "cls.predictions.decoder.weight"),
        ("roberta", "lm_head.decoder.weight"),
        ("distilbert", "vocab_projector.weight"),
        ("albert", "predictions.decoder.weight"),
        ("mpnet", "lm_head.decoder.weight"),
        ("deberta_v2", "cls.predictions.decoder.weight"),
        ("modernbert", "decoder.weight"),
    ],
)
def test_an_encoder_whose_file_holds_its_table_as_decoder_only(torch, tiny, tmp_path, name, alias):
    import transformers

    torch.manual_seed(0)
    stem = counterpart(name).model_class.removesuffix("Model")
    model = getattr(transformers, f"{stem}ForMaskedLM")(their_config(name, vocab_size=ROWS))
    model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    expected = models.load(str(tmp_path)).params
    rewrite(tmp_path, lambda tensors: {(alias if own == _table(name) else own): t for own, t in tensors.items()})
    assert alias in rewrite(tmp_path, dict)
    found = models.load(str(tmp_path)).params
    np.testing.assert_array_equal(*(_first(params) for params in (found, expected)))


def _first(params):
    return (params.get("embeddings") or params)["token"]["embedding"]
