"""``roberta-base`` from a hub on this machine, under its former name."""

import numpy as np
import pytest
from hub_model import HIDDEN, LAYERS, POSITIONS, WIDE, roberta
from hub_server import Fault
from safetensors.numpy import load, load_file
from tokenizers import Tokenizer


def test_roberta_base_loads_by_its_former_name(local_hub, ask):
    found = ask(model="roberta-base")
    files = roberta().files
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    assert found.get("tokens") == tokenizer.encode("the kla label number 1").ids, found
    assert (found["tokens"][0], found["tokens"][-1]) == (0, 2)
    words = tokenizer.get_vocab_size()
    layer = 4 * HIDDEN * (HIDDEN + 1) + HIDDEN * (WIDE + 1) + WIDE * (HIDDEN + 1) + 4 * HIDDEN
    assert found["total"] == (words + POSITIONS + 1 + 2) * HIDDEN + LAYERS * layer
    fetched = {path.rpartition("/")[2] for path in local_hub.requests if path.startswith("GET /FacebookAI/")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
    assert not fetched & {"pytorch_model.bin", "flax_model.msgpack", "rust_model.ot", "tf_model.h5"}


@pytest.mark.parametrize(
    ("name", "fault", "told"),
    [
        ("stalls", Fault("^GET /made-up/.*safetensors", stall=30), "it stopped in the middle of a file"),
        ("fails", Fault("^(GET|HEAD) /made-up/", status=500), "it answered 500 Internal Server Error"),
        ("waits", Fault("^GET /api/models/", status=429, headers={"Retry-After": "300"}), "asked to wait 300 seconds"),
    ],
)
def test_a_model_that_does_not_come_is_told_in_one_line_and_in_time(local_hub, ask, name, fault, told):
    local_hub.repositories["models"][f"made-up/{name}"] = roberta()
    local_hub.faults.append(fault)
    try:
        found = ask(model=f"made-up/{name}", patience=(1.0, 1.5, (0.1, 0.2)))
    finally:
        local_hub.faults.clear()
    assert told in found.get("error", "none")
    assert "\n" not in found["error"]
    assert found["seconds"] < 10


def test_models_of_the_hub_are_merged_by_name(local_hub, ask, tmp_path):
    files = roberta().files
    for name in ("a", "b"):
        local_hub.repositories["models"][f"made-up/merged-{name}"] = roberta()
    found = ask(merge=["made-up/merged-a", "made-up/merged-b"], to=str(tmp_path / "merged"))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(found.get("written", ())), found
    merged, own = load_file(tmp_path / "merged" / "model.safetensors"), load(files["model.safetensors"])
    assert merged.keys() == own.keys()
    for path, leaf in own.items():
        np.testing.assert_allclose(merged[path], leaf, atol=1e-6, err_msg=path)
    absent = ask(merge=["made-up/merged-a", "made-up/absent"], to=str(tmp_path / "other"))
    assert "'made-up/absent' is not a local folder and could not be downloaded" in absent.get("error", "none")
    assert not (tmp_path / "other").exists()


def test_a_kept_model_replaces_a_hub_that_fails(local_hub, ask):
    local_hub.repositories["models"]["made-up/kept"] = roberta()
    first = ask(model="made-up/kept")
    local_hub.faults.append(Fault(".", status=500))
    try:
        found = ask(model="made-up/kept", patience=(1.0, 1.5, (0.1, 0.2)))
    finally:
        local_hub.faults.clear()
    assert found.get("tokens") == first["tokens"], found
    assert found["seconds"] < 10
