"""Model cards against the classes of huggingface_hub: parents, licences, datasets, and scores with their intervals."""

import hashlib
import json
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import metadata_load
from incoming_folders import near, write
from scipy.stats import binomtest
from test_store import record_of

import wsr
from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.file_card import card_of_files
from wsr.exchange.licences import UNCLEAR, Licences, card_of_folder, card_of_text, licence_of
from wsr.exchange.model_card import model_card
from wsr.exchange.scores import keep_scores
from wsr.models.huggingface import hub
from wsr.models.huggingface.hub import card_text
from wsr.store import Store

CARDS = {
    "them/mit": "---\nlicense: mit\ndatasets:\n- nyu-mll/glue\n---\n# x\n",
    "them/apache": "---\nlicense: apache-2.0\n---\n",
    "them/silent": "---\ntags:\n- x\n---\n",
    "roberta-base": "---\nlicense: mit\n---\n",
}


@pytest.fixture
def store(tiny, tmp_path, monkeypatch):
    """A store whose members are m0 (trained), mit, apache and silent (of the hub), local and carded (folders)."""
    monkeypatch.setattr(hub, "card_text", CARDS.get)
    monkeypatch.chdir(tmp_path)
    store = Store.create_for(tmp_path / "store", tiny)
    told = {
        "m0": {},
        **{
            name: {"source": f"them/{name}", "card": dict(card_of_text(CARDS[f"them/{name}"]))}
            for name in ("mit", "apache", "silent")
        },
        "local": {"source": "/home/me/local"},
        "carded": {"source": "/home/me/carded", "card": {"license": UNCLEAR, "datasets": []}},
    }
    for seed, (name, about) in enumerate(told.items()):
        dataset = "sst2" if name == "m0" else "own"
        store.save(record_of(name, dataset=dataset, hyperparameters=about, metrics={}), near(tiny.params, seed), {})
    return store


def card(store, *names, coefficients=None, **more):
    members = coefficients or dict.fromkeys(names)
    return ModelCard(model_card(store, members, title="t", method="m", command="wsr x", **more))


def test_the_cards_of_folders_and_texts_are_read_as_the_hub_reads_them(tmp_path):
    for text, expected in {
        "---\nlicense: MIT\n---\n": "mit",
        "---\nlicense: [cc-by-4.0]\n---\n": "cc-by-4.0",
        "---\nlicense:\n- mit\n- apache-2.0\n---\n": UNCLEAR,
        "---\nlicense: other\nlicense_name: llama3\n---\n": UNCLEAR,
        "---\nlicense: unknown\n---\n": UNCLEAR,
        "---\nlicense: {a: 1}\n---\n": UNCLEAR,
        "---\nlicense: [unclosed\n---\n": UNCLEAR,
        "---\n- a list\n---\n": UNCLEAR,
        "# no metadata\nlicense: mit\n": None,
        "": None,
        "---\ntags:\n- weight-space-regions\n---\n": None,
    }.items():
        assert card_of_text(text)["license"] == expected, text
    assert card_of_text(CARDS["them/mit"])["datasets"] == ["nyu-mll/glue"]
    assert card_of_text("---\nlicense: mit\ndatasets: [1, 'a b', x/y]\n---\n")["datasets"] == ["x/y"]
    assert card_of_folder(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff\xfe")
    assert card_of_folder(tmp_path)["license"] == "mit"
    assert licence_of(str(tmp_path)) == "mit"


@pytest.mark.parametrize(
    ("parents", "own"),
    [
        ({"a": "mit", "b": "mit"}, "mit"),
        ({"a": "mit", "b": None}, None),
        ({"a": None}, None),
    ],
)
def test_the_licence_is_the_one_that_every_parent_names(parents, own):
    assert Licences.of(parents).own == own
    assert Licences.of(parents, "cc0-1.0").own == "cc0-1.0"


@pytest.mark.parametrize(
    ("parents", "told"),
    [
        ({"a": "mit", "b": UNCLEAR}, "the licence of b is unclear"),
        ({"a": UNCLEAR, "b": None}, "the licence of a is unclear"),
        ({"a": "mit", "b": "apache-2.0"}, r"different licences \(a: mit, b: apache-2.0\)"),
    ],
)
def test_unclear_and_conflicting_licences_are_refused_until_one_is_given(parents, told):
    with pytest.raises(WsrError, match=told) as raised:
        Licences.of(parents)
    assert "--license=apache-2.0" in str(raised.value)
    assert Licences.of(parents, "mit").own == "mit"
    with pytest.raises(WsrError, match="expected an identifier"):
        Licences.of(parents, "Do what you want")


def test_who_has_which_licence(store):
    assert licence_of("tiny") is None  # packaged
    assert licence_of("/home/me/gone") is licence_of("./gone") is None
    assert licence_of("roberta-base") == "mit"
    assert licence_of("gone-without-owner") is None
    assert licence_of("them/gone") == UNCLEAR
    assert licence_of("them/silent", {"license": None}) == UNCLEAR
    assert licence_of("/home/me/model", {"license": None}) is None
    assert card(store, "m0").data.license is None
    assert card(store, "local", "m0").data.license is None
    with pytest.raises(WsrError, match="the licence of silent is unclear"):
        card(store, "silent", "m0")
    with pytest.raises(WsrError, match="the licence of carded is unclear"):
        card(store, "carded")
    with pytest.raises(WsrError, match="different licences"):
        card(store, "mit", "apache")
    store.base_name = "them/apache"
    assert card(store, "m0").data.license == "apache-2.0"  # a member that wsr trained has the base's
    assert card(store).data.license == "apache-2.0"
    assert card(store, "m0", "apache").data.license == "apache-2.0"
    assert card(store, "apache", "local").data.license is None
    text = model_card(store, {"apache": None, "local": None}, title="t", method="m", command="x")
    assert "| `apache` | `apache-2.0` |" in text
    assert "| `local` | no card names one |" in text
    given = card(store, "silent", "mit", licence="mit")
    assert given.data.license == "mit"
    assert "| `silent` | unclear |" in given.text


def test_a_card_comes_from_the_cache_or_else_from_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    (tmp_path / "README.md").write_text("text")
    asked = []

    def answers(*known):
        def download(name, file, *, local_files_only, etag_timeout):
            asked.append(local_files_only)
            if local_files_only not in known:
                raise OSError("not there")
            return str(tmp_path / file)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        asked.clear()

    for known, text, requests in (
        ((True,), "text", [True]),
        ((False,), "text", [True, False]),
        ((), None, [True, False]),
    ):
        answers(*known)
        assert card_text("owner/name") == text
        assert asked == requests


def test_the_parents_of_a_merge_are_the_models_of_the_hub(store):
    data = card(store, "mit", "silent", "local", licence="mit").data
    assert (data.base_model, data.base_model_relation) == (["them/mit", "them/silent"], "merge")
    store.base_name = "them/apache"
    assert card(store, "local", "m0").data.base_model == "them/apache"
    assert card(store, "mit", "m0", licence="mit").data.base_model == ["them/mit"]
    found = card(store, "mit", licence="mit", adapter="rank 4").data
    assert (found.base_model, found.base_model_relation) == ("them/apache", "adapter")
    text = card(store, "mit", "silent", licence="mit").text
    assert all(store.record(name).content_sha256 in text for name in ("mit", "silent"))
    assert store.base_sha256 in text
    # A folder that is gone looks like a name of the hub.
    gone = {"x": replace(store.record("local"), name="x", hyperparameters={"source": "./gone"})}
    store.record = {**{own.name: own for own in store.records()}, **gone}.get
    assert card(store, "x", "local").data.base_model == "them/apache"


def test_datasets_are_those_of_the_members(store):
    """A registered dataset of the hub by its repository, an imported member's by its card."""
    assert card(store, "m0", "mit", "local", licence="mit").data.datasets == ["nyu-mll/glue"]
    assert card(store, "local").data.datasets is None
    assert card(store, "m0").data.datasets == ["nyu-mll/glue"]


def test_scores_are_results_of_the_hub_with_intervals(store):
    row = {"group": "x", "members": ["local"], "coefficients": [1.0], "dataset": "own", "how": "exact", "n": 40}
    rows = [
        {**row, "metric": "accuracy", "value": 0.825, "probe": "linear"},
        {**row, "metric": "generalised_loss", "value": 0.5, "probe": "linear", "low": 0.4, "high": 0.6},
        {**row, "metric": "macro_f1", "value": 0.7, "probe": "linear"},
    ]
    keep_scores(store, rows)
    found = card(store, coefficients={"local": 1.0})
    assert found.data.model_name == "t"
    results = {own.metric_type: own for own in found.data.eval_results}
    assert {own.metric_value for own in results.values()} == {0.825, 0.5, 0.7}
    accuracy = results["accuracy"]
    assert (accuracy.task_type, accuracy.dataset_name, accuracy.dataset_split) == ("feature-extraction", "own", "test")
    wilson = binomtest(33, 40).proportion_ci(method="wilson")
    assert accuracy.metric_args["interval"] == pytest.approx([wilson.low, wilson.high])
    assert results["generalised_loss"].metric_args == {"texts": 40, "interval": [0.4, 0.6], "level": 0.95}
    assert results["macro_f1"].metric_args == {"texts": 40}
    assert "| `own` | `generalised_loss` | 0.5000 | 0.4000 to 0.6000 | 40 | `exact` |" in found.text
    assert "| `own` | `macro_f1` | 0.7000 | – | 40 | `exact` |" in found.text
    # What the hub's own classes write from these results, they read again alike.
    again = ModelCardData(model_name="t", eval_results=found.data.eval_results)
    assert again.to_dict()["model-index"] == found.data.to_dict()["model-index"]


def test_a_member_is_scored_by_its_own_head(store):
    metrics = {"test_score": 0.9, "test_texts": 50.0, "chance": 0.5}
    record = replace(store.record("local"), name="own", metrics=metrics, hyperparameters={"metric": "accuracy"})
    store.save(replace(record, content_sha256=""), near(store.base(), 9), {})
    (result,) = card(store, coefficients={"own": 1.0}).data.eval_results
    assert (result.metric_type, result.metric_value, result.task_name) == ("accuracy", 0.9, "its own head")
    assert result.metric_args["texts"] == 50
    broken = replace(record, name="broken", metrics={**metrics, "test_score": float("nan")}, content_sha256="")
    store.save(broken, near(store.base(), 10), {})
    assert card(store, coefficients={"broken": 1.0}).data.eval_results is None


def test_titles_of_all_kinds_make_valid_metadata(store):
    keep_scores(
        store,
        [
            {
                "group": "x",
                "members": ["local"],
                "coefficients": [1.0],
                "dataset": "a: b\n- c",
                "metric": "m",
                "value": 1.0,
                "n": 3,
                "how": "exact",
            }
        ],
    )
    text = model_card(store, {"local": 1.0}, title="a: [b]\n---\n# c", method="m", command="x")
    data = ModelCard(text).data
    assert data.eval_results[0].dataset_name == "a: b\n- c"
    assert data.tags == ["weight-space-regions"]


def test_the_commands_refuse_before_they_work_and_write_the_licence_given(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two")):
        write(tiny, tmp_path / name, seed)
        (tmp_path / name / "README.md").write_text(f"---\nlicense: {'mit' if seed else 'apache-2.0'}\n---\n")
    assert main(["import", "one", "two", "--store=store", "--base=tiny"]) == 0
    assert Store.open("store").record("one").hyperparameters["card"] == {"license": "apache-2.0", "datasets": []}
    capsys.readouterr()
    for words in (["merge"], ["export", "centroid"], ["export", "one=0.5,two=0.5"]):
        assert main([*words, "--store=store", "--to=out"]) == 1
        error = capsys.readouterr().err
        assert "the parents have different licences" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()
    assert main(["export", "one", "--store=store", "--to=same"]) == 0  # the packaged base says nothing
    assert metadata_load("same/README.md").get("license") is None
    assert main(["merge", "--store=store", "--to=merged", "--license=mit"]) == 0
    assert metadata_load("merged/README.md")["license"] == "mit"
    # The card of the export names no licence, and no parent was unclear: it can be imported and exported again.
    assert main(["import", "same", "--store=again", "--base=tiny"]) == 0
    assert main(["export", "same", "--store=again", "--to=twice"]) == 0


def test_a_merge_of_files_names_its_parents_with_hashes_and_licences(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed, (name, licence) in enumerate({"base": "mit", "one": "mit", "two": "apache-2.0"}.items()):
        write(tiny, tmp_path / name, seed)
        (tmp_path / name / "README.md").write_text(f"---\nlicense: {licence}\ndatasets: [x/{name}]\n---\n")
    models = [{"model": "one"}, {"model": "two"}]
    recipe = {"merge_method": "task_arithmetic", "base_model": "base", "models": models}
    (tmp_path / "recipe.yml").write_text(json.dumps({**recipe, "parameters": {"weight": 0.5}}))
    words = ["merge", "--recipe=recipe.yml", "--to=out"]
    assert main(words) == 1
    assert "different licences (one: mit, two: apache-2.0, base: mit)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "two" / "README.md").write_text("---\nlicense: mit\n---\n")
    assert main(words) == 0
    card = ModelCard.load("out/README.md")
    assert (card.data.license, card.data.datasets, card.data.base_model) == ("mit", ["x/one"], None)
    for name, role in (("one", "merged"), ("two", "merged"), ("base", "base")):
        digest = hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()
        assert f"| `{name}` | {role} | `model.safetensors` | `{digest}` |" in card.text
    assert "wsr merge --recipe=recipe.yml --to=out" in card.text


def test_the_parents_of_a_merge_of_files_are_those_of_the_hub(tmp_path, monkeypatch):
    """A file in the hub's cache is a link to one that is named by its sha256."""
    blob = tmp_path / ("a" * 64)
    blob.write_bytes(b"x")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(blob)
    text = card_of_files(
        ["them/one", "/home/me/two"],
        [("them/one", tmp_path / "snapshot"), ("/home/me/two", tmp_path / "none")],
        Licences("mit", {"them/one": "mit", "/home/me/two": "mit"}),
        title="t",
        made="linear merge of 2 models",
        command="wsr x",
    )
    data = ModelCard(text).data
    assert (data.base_model, data.base_model_relation) == (["them/one"], "merge")
    assert data.tags == ["weight-space-regions", "merge"]
    assert f"| `them/one` | merged | `model.safetensors` | `{'a' * 64}` |" in text
    monkeypatch.setattr("wsr.exchange.file_card.LONGEST_HASHED_BYTES", 0)
    (tmp_path / "snapshot" / "model.safetensors").unlink()
    (tmp_path / "snapshot" / "model.safetensors").write_bytes(b"x")
    assert "too large" in card_of_files(
        ["a/b"], [("a/b", tmp_path / "snapshot")], Licences(None, {}), title="t", made="m", command="x"
    )


def test_an_average_of_a_run_has_a_card_of_its_own(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for step in (10, 20):
        write(tiny, tmp_path / f"step-{step}", step)
        (tmp_path / f"step-{step}" / "README.md").write_text("---\nlicense: mit\ndatasets: [x/one]\n---\nA step.\n")
    assert main(["average", "step-20", "step-10", "--to=out"]) == 0
    card = ModelCard.load("out/README.md")
    assert (card.data.license, card.data.datasets, card.data.base_model) == ("mit", ["x/one"], None)
    for step in (10, 20):
        digest = hashlib.sha256((tmp_path / f"step-{step}" / "model.safetensors").read_bytes()).hexdigest()
        assert f"| `step-{step}` | merged | `model.safetensors` | `{digest}` |" in card.text
    assert "uniform average of 2 checkpoints of one run" in card.text
    assert "wsr average step-20 step-10 --to=out" in card.text
    assert "A step." not in card.text
    (tmp_path / "step-20" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert main(["average", "step-20", "step-10", "--to=second"]) == 1
    assert main(["average", "step-20", "step-10", "--to=second", "--license=mit"]) == 0


def test_an_extracted_adapter_has_the_licence_of_its_parents(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wsr.export(tiny, "base", card="---\nlicense: mit\n---\n")
    write(tiny, tmp_path / "tuned", 1)
    (tmp_path / "tuned" / "README.md").write_text("---\nlicense: mit\n---\n")
    assert main(["extract", "tuned", "--base=base", "--rank=2", "--to=adapter"]) == 0
    assert metadata_load("adapter/README.md")["license"] == "mit"
    (tmp_path / "tuned" / "README.md").write_text("---\nlicense: other\n---\n")
    assert main(["extract", "tuned", "--base=base", "--rank=2", "--to=second"]) == 1
    assert "the licence of tuned is unclear" in capsys.readouterr().err
    assert main(["extract", "tuned", "--base=base", "--rank=2", "--to=second", "--license=mit"]) == 0
