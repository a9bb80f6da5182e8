"""What ``import wsr`` offers: every verb, every name where the table says, in two lines when printed."""

import subprocess
import sys

import jaxtyping
import matplotlib
import numpy as np
import pytest
from worlds import made_up

import wsr
from wsr.cli import VERBS

matplotlib.use("agg")


def test_every_verb_of_the_command_line_is_there_after_import_wsr():
    names = dir(wsr)
    functions = [verb.replace("-", "_") for verb in VERBS]
    assert [name for name in functions if name not in names and f"{name}_" not in names] == []
    assert set(names) == {*wsr.__all__, "__version__"}


@pytest.mark.parametrize("name", wsr.__all__)
def test_every_name_is_at_home_where_the_type_checker_is_told(name):
    """The table of homes and the imports under TYPE_CHECKING are two lists of the same names."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(wsr.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            told |= {alias.asname: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Assign):
            told[node.targets[0].id] = told[node.value.id]
    module, there = told[name]
    found = getattr(wsr, name)
    if module == "wsr" or name == "sampling":
        assert found.__name__ == f"{module}.{there}"
    else:
        assert found.__name__ == there
        assert found is getattr(sys.modules[module], there)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="evaluat"):
        wsr.evaluat  # noqa: B018


def test_import_wsr_imports_none_of_the_rooms():
    code = "import sys, wsr; print(sorted(name for name in sys.modules if name.startswith(('wsr.', 'jax', 'numpy'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_things_print_in_two_lines(tiny, dataset, tmp_path):
    region = wsr.made_up_region(3)
    store = wsr.Store.create_for(tmp_path / "store", tiny)
    things = [tiny, region, region.members[0], dataset, store, wsr.evaluate(region, region.centroid(), dataset)]
    for thing in [*things, wsr.map(region, clusters=1)]:
        lines = repr(thing).split("\n")
        assert len(lines) == 2, thing
        assert all(len(line) < 160 for line in lines), thing
        assert lines[0].startswith(type(thing).__name__), thing


def test_a_notebook_reads_as_a_person_would_write_it(tiny):
    region = wsr.made_up_region(4)
    data = made_up(tiny, "made_up_a2")
    scores = wsr.evaluate(region, region.centroid(), data)
    same = wsr.evaluate(region, region.centroid()[None], data)
    np.testing.assert_array_equal(scores.losses, same.losses)
    frame = scores.to_frame()
    assert frame["generalised_loss"].tolist() == scores.generalised_loss.tolist()
    assert frame[list(region.names)].to_numpy().tolist() == scores.coefficients.tolist()

    merged = wsr.merge(region, wsr.merging.Ties(density=0.3))
    from wsr.geometry.trees import flatten

    assert {path: leaf.shape for path, leaf in flatten(merged).items()} == {
        path: leaf.shape for path, leaf in flatten(tiny.params).items()
    }


def test_plots_draw_on_the_axes_they_are_given():
    import matplotlib.pyplot as plt

    region = wsr.made_up_region(5)
    _, (left, right) = plt.subplots(1, 2)
    assert region.plot_map(left) is left
    assert region.plot_similarity(right) is right
    (dots,) = left.collections
    assert len(dots.get_offsets()) == 5
    (image,) = right.images
    order = np.argsort(region.names)
    np.testing.assert_allclose(image.get_array(), region.similarity()[np.ix_(order, order)])
    assert region.plot_map().get_title()
    plt.close("all")


def test_an_edited_setting_that_makes_no_sense_is_refused_where_it_is_made():
    for field, value in (("chunk", 0), ("memory_budget_gib", -1.0), ("memory_budget_gib", float("nan")), ("rows", 0)):
        with pytest.raises(wsr.WsrError, match=field):
            wsr.Settings(**{field: value})
    # Types are checked at run time here and not in the field, where a WsrError says what is wrong.
    with pytest.raises((wsr.WsrError, jaxtyping.TypeCheckError), match="bfloat16"):
        wsr.Settings(precision="float16")


def test_finetune_chooses_how_many_members_train_together(tiny, dataset):
    jobs = [
        wsr.Job(dataset, seed, wsr.Recipe(learning_rate=0.01, batch_size=32, epochs=1.0, warmup=0.006))
        for seed in range(2)
    ]
    chosen = list(wsr.finetune(tiny.model, tiny.params, jobs))
    alone = list(wsr.finetune(tiny.model, tiny.params, jobs, chunk=1))
    assert [member.losses.tolist() for member in chosen] == [member.losses.tolist() for member in alone]
