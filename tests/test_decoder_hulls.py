"""Hulls of decoders: surrogate, polynomials, fronts and pages against exact evaluation and transformers' own losses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_support import random_params, random_texts
from test_choices import QUESTIONS, _their_log_likelihood, _tokenizer, _written
from test_explore import bernstein, floats, page_values
from test_language_model import _pair
from test_store import record_of

import wsr
from wsr import models
from wsr.cli import main
from wsr.data.choices import Choices, load_choices
from wsr.data.dataset import Split
from wsr.data.halves import halves
from wsr.data.texts import Texts, load_texts
from wsr.engine.choices import ChoiceEvaluation, evaluate_choices
from wsr.engine.descent import mean_loss
from wsr.engine.evaluate import EXACT
from wsr.engine.front import front_of, non_dominated
from wsr.engine.hull_polynomial import design_of, draw_faces, fit_hull_polynomial
from wsr.engine.language_model import evaluate_language_model
from wsr.engine.objective import evaluate_on, objective_of, text_losses
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.models.huggingface.weights import from_huggingface
from wsr.region.region import from_params
from wsr.store import Store
from wsr.store.results import Results

MEMBERS = 3
PREFERENCES = [
    {"prompt": "ab ba", "chosen": "ab", "rejected": "ba ba"},
    {"prompt": "abba:", "chosen": "bab", "rejected": "a"},
    {"prompt": "ba", "chosen": "bb", "rejected": "ab ab"},
]


class World:
    """A small decoder of transformers, three models near it, and the same as a region."""

    def __init__(self, torch, kind, spread=0.01):
        self.torch = torch
        self.theirs, model, base = _pair(torch, kind, kind == "gpt2")
        self.states = [self.theirs.state_dict()]
        self.states = [{key: value.clone() for key, value in self.states[0].items()}]
        members = {}
        for seed in range(MEMBERS):
            torch.manual_seed(100 + seed)
            state = {key: value + spread * torch.randn_like(value) for key, value in self.states[0].items()}
            if kind == "gpt2":
                state["lm_head.weight"] = state["transformer.wte.weight"]
            members[f"m{seed}"], _ = from_huggingface(model, {key: value.numpy() for key, value in state.items()})
            self.states.append(state)
        self.region = from_params(model, base, members)

    def at(self, point):
        """Their model at a point of the hull."""
        rows = [1 - point.sum(), *point.tolist()]
        mixed = {key: sum(c * state[key] for c, state in zip(rows, self.states, strict=True)) for key in self.states[0]}
        self.theirs.load_state_dict(mixed)
        return self.theirs

    def loss_of_texts(self, point, ids):
        """Transformers' own loss, averaged over all predicted tokens."""
        model, total = self.at(point), 0.0
        with self.torch.no_grad():
            for own in ids:
                total += float(model(self.torch.tensor([own]), labels=self.torch.tensor([own])).loss) * (len(own) - 1)
        return total / sum(len(own) - 1 for own in ids)

    def loss_of_preferences(self, point, tokenizer):
        """Bradley and Terry's loss of their log-likelihoods."""
        model = self.at(point)
        gaps = [
            _their_log_likelihood(self.torch, model, tokenizer, row["prompt"], row["chosen"])
            - _their_log_likelihood(self.torch, model, tokenizer, row["prompt"], row["rejected"])
            for row in PREFERENCES
        ]
        return float(np.log1p(np.exp(-np.array(gaps))).mean())


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def world(request, torch):
    return World(torch, request.param)


def plain(seed=0, count=12, name="plain"):
    """Texts of random tokens, one a window; the first two are equal."""
    draw = np.random.default_rng(seed)
    ids = [own for own, _ in random_texts(seed, draw.integers(3, 20, count - 1).tolist(), 40)]
    ids = [ids[0], *ids]
    flat = np.concatenate(ids).astype(np.int32)
    offsets = np.cumsum([0, *map(len, ids)]).astype(np.int64)
    split = Split(flat, np.zeros_like(flat), offsets, np.zeros(count, np.int32))
    hashes = np.array([hash(tuple(own)) % 2**63 for own in ids], np.uint64)
    return ids, Texts(name, split, np.arange(count), f"{name} {seed}", hashes_of_scored=hashes)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions with two and three answers."""
    return load_choices(_written(tmp_path_factory.mktemp("q") / "q.jsonl", QUESTIONS), _tokenizer(False), max_length=24)


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    path = _written(tmp_path_factory.mktemp("p") / "preferences.jsonl", PREFERENCES)
    return load_choices(path, _tokenizer(False), max_length=24)


def hull(points, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(MEMBERS), size=points)


def losses_of(evaluation):
    return next(iter(evaluation.values.values()))


@pytest.mark.torch
def test_the_surrogate_keeps_its_bounds_and_its_values_are_those_of_transformers(world, preferences):
    ids, texts = plain()
    over, answered = 0, 0
    for target, evaluate, theirs in (
        (texts, evaluate_language_model, lambda point: world.loss_of_texts(point, ids)),
        (preferences, evaluate_choices, lambda point: world.loss_of_preferences(point, _tokenizer(False))),
    ):
        rows, settings = hull(60), Settings(results=Results.in_memory())
        exact = evaluate(world.region, rows, target, settings=settings)
        tolerance = 0.1 * float(np.ptp(losses_of(exact)))
        for seed in range(3):
            found = wsr.evaluate_hull(world.region, rows, target, tolerance=tolerance, seed=seed, settings=settings)
            own = np.array([how != EXACT for how in found.how])
            errors = np.abs(losses_of(found) - losses_of(exact))
            assert (found.error_bounds[own] <= tolerance).all()
            np.testing.assert_allclose(errors[~own], 0, atol=1e-6)
            over, answered = over + int((errors > found.error_bounds)[own].sum()), answered + int(own.sum())
        for number in np.flatnonzero(own)[:2]:
            assert abs(losses_of(found)[number] - theirs(rows[number])) <= tolerance
        for metric, values in found.values.items():
            np.testing.assert_allclose(values, exact.values[metric], rtol=0.05, atol=1 / 3)
        assert found.rows("hull")[0]["how"] == found.how[0]
        assert "error_bound" in found.to_frame()
    assert answered > 150
    assert over <= 0.05 * answered  # the level holds over requests


@pytest.mark.torch
def test_polynomials_keep_their_bounds_and_their_values_are_those_of_transformers(world, preferences):
    ids, texts = plain()
    rows = draw_faces(np.random.default_rng(7), 30, MEMBERS)
    over = []
    for seed, target in enumerate((texts, preferences), start=1):
        exact = losses_of(evaluate_on(world.region, rows, target))
        found = fit_hull_polynomial(world.region, target, design_of(MEMBERS, points=73, seed=seed))
        bounds = found.bounds_at(rows)[0]
        over.append((np.abs(found.at(rows)[0] - exact) > bounds).mean())
        assert np.median(bounds) < 0.5 * np.ptp(exact), target.name
        assert np.corrcoef(found.losses_at(rows), exact)[0, 1] > 0.95, target.name
        if isinstance(target, Texts):
            np.testing.assert_allclose(found.at(rows)[1], np.exp(found.at(rows)[0]))
            np.testing.assert_allclose(found.losses_at(rows[:1]), world.loss_of_texts(rows[0], ids), atol=1e-3)
    assert np.mean(over) <= 0.05  # a single design is allowed more, with a probability of 5 %


@pytest.fixture(scope="module")
def gpt2(torch):
    return World(torch, "gpt2").region


@pytest.fixture(scope="module")
def cache():
    """No test scores the points of another again."""
    return Settings(results=Results.in_memory())


@pytest.mark.torch
def test_outputs_give_the_losses_of_questions_with_unequal_numbers_of_answers(gpt2, questions):
    rows, objective = hull(5), objective_of(questions)
    exact = evaluate_choices(gpt2, rows, questions)
    outputs = exact.outputs
    assert outputs.shape == (5, 4, 2)
    losses, scores = objective.losses_and_scores(outputs)
    np.testing.assert_allclose(losses, exact.choice_loss, atol=1e-5)
    np.testing.assert_allclose(scores, exact.accuracy)
    for own, wanted in zip(outputs, exact.losses, strict=True):
        found = text_losses(objective.kind, jnp.asarray(own, jnp.float32), objective.labels)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.torch
def test_some_of_the_texts_or_questions_have_the_losses_that_they_had_among_all(gpt2, questions):
    _, texts = plain()
    several = Texts("several", texts.windows, np.array([0, 3, 4, 9]), "several")
    some = np.array([3, 0, 2])
    for target, evaluate in ((several, evaluate_language_model), (questions, evaluate_choices)):
        whole, part = (evaluate(gpt2, hull(2), own) for own in (target, target.take(some)))
        np.testing.assert_allclose(part.losses, whole.losses[:, some], atol=1e-5)
        assert target.take(some).content_hash != target.content_hash
        assert target.take(np.arange(4)).content_hash == target.take(np.arange(4)).content_hash
    taken = questions.take(some)
    assert taken.characters.tolist() == [5, 2, 2, 5, 3, 1]
    values = np.array([[0.0, 1.0, 3.0, 2.0, 4.0, 5.0]])  # only the second question is answered wrongly
    assert ChoiceEvaluation(gpt2, hull(1), taken, values, (EXACT,)).accuracy == pytest.approx(2 / 3)


def test_halves_share_no_text_and_keep_equal_ones_together(questions):
    _, texts = plain(count=13)
    first, second = halves(texts)
    assert len(first) + len(second) == 13
    assert abs(len(first) - len(second)) <= 3
    assert not set(first.hashes_of_scored.tolist()) & set(second.hashes_of_scored.tolist())
    again, _ = halves(texts)
    assert again.content_hash == first.content_hash
    one, other = halves(questions)
    assert (len(one), len(other)) == (2, 2)
    assert isinstance(one, Choices)
    with pytest.raises(WsrError, match="found 1 different texts"):
        halves(texts.take(np.array([0, 1])))


@pytest.mark.torch
def test_a_front_between_two_styles_is_scored_on_texts_that_did_not_choose_it(gpt2):
    both = [plain(seed, 20, f"style{seed}")[1] for seed in (1, 2)]
    settings = Settings(results=Results.in_memory())
    found = wsr.pareto(gpt2, both, points=75, front=5, settings=settings)
    scored = np.concatenate([found.points, np.eye(MEMBERS), gpt2.centroid()[None]])
    for own, target in zip(found.evaluations, both, strict=True):
        exact = evaluate_language_model(gpt2, scored, halves(target)[1])
        np.testing.assert_allclose(own.perplexity, exact.perplexity, rtol=1e-5)
    chosen_on = [halves(target)[0] for target in both]
    random = np.concatenate([hull(40), np.eye(MEMBERS)])
    losses, front = (
        np.stack([evaluate_language_model(gpt2, rows, own).language_model_loss for own in chosen_on], axis=1)
        for rows in (random, found.points)
    )
    assert not (losses[:, None] < front - 0.02 * np.ptp(losses, axis=0)).all(axis=-1).any()
    assert non_dominated(found.losses).tolist() == found.on_test.tolist()
    with pytest.raises(WsrError, match="no point of the hull satisfies style1 <= 1; loosen"):
        wsr.pareto(gpt2, both, points=75, at_most={"style1": 1.0}, settings=settings)


@pytest.mark.torch
def test_gradients_descend_on_the_losses_of_decoders(gpt2, questions, cache):
    """The front of one polynomial of texts and one of questions ends at the best points of both."""
    design = design_of(MEMBERS, points=75)
    polynomials = [fit_hull_polynomial(gpt2, own, design, settings=cache) for own in (plain()[1], questions)]
    rows = draw_faces(np.random.default_rng(1), 5, MEMBERS)
    for own in polynomials:
        kind = {"degree": own.interpolation.degree, "kind": own.objective.kind}
        losses = [
            float(mean_loss(jnp.asarray(row, jnp.float32), jnp.asarray(own.terms), own.objective.labels, **kind))
            for row in rows
        ]
        np.testing.assert_allclose(losses, own.at(rows)[0], rtol=1e-4)
    front = front_of(polynomials, points=5)
    many = draw_faces(np.random.default_rng(9), 1000, MEMBERS)
    most = float(np.quantile(polynomials[0].at(many)[1], 0.3))
    limited = front_of(polynomials, points=5, at_most={0: most})
    assert len(limited)
    assert (polynomials[0].at(limited)[1] <= most).all()
    for own in polynomials:
        assert own.losses_at(front).min() <= own.losses_at(many).min() + 0.005 * np.ptp(own.losses_at(many))


@pytest.mark.torch
def test_the_page_has_the_losses_of_decoders(gpt2, questions, cache, tmp_path):
    _, texts = plain()
    file = tmp_path / "page.html"
    wsr.explore(gpt2, [texts, questions], file, points=75, settings=cache)
    content = json.loads(file.read_text("utf-8").split('id="data">')[1].split("</script>")[0])
    of_texts, of_questions = content["datasets"]
    rows = draw_faces(np.random.default_rng(3), 40, MEMBERS)
    assert of_texts["metric"] == "perplexity"
    np.testing.assert_allclose(of_texts["exact_scores"], np.exp(of_texts["exact_losses"]))
    losses = bernstein(rows, of_texts["degree"]) @ floats(of_texts["terms"])
    bounds = page_values(content, {**of_texts, "outputs": 1, "labels": [0]}, rows)[2]
    answers, accuracies, answer_bounds, accuracy_bounds = page_values(content, of_questions, rows)
    plain_texts, choices = evaluate_on(gpt2, rows, texts), evaluate_on(gpt2, rows, questions)
    for found, exact, bound in (
        (losses, plain_texts.language_model_loss, bounds),
        (answers, choices.choice_loss, answer_bounds),
        (accuracies, choices.accuracy, accuracy_bounds),
    ):
        errors = np.abs(found - exact)
        assert errors.mean() <= 0.02 * np.ptp(exact)
        assert (errors > bound).mean() <= 0.2  # of one design; the test above counts over several
    told = file.read_text("utf-8")
    assert "mean over all predicted tokens" in told
    assert "linear probe" not in told


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    """Two GPT-2s near one base, which know the tiny checkpoint's vocabulary."""
    folder = tmp_path_factory.mktemp("decoders")
    model = models.build("gpt2", {**models.architectures()["gpt2"].example, "vocab_size": 108})
    base = random_params(model)
    models.export(models.Checkpoint(model, base, tiny.processor), folder / "base")
    made = Store.create_for(folder / "store", models.load(str(folder / "base")))
    metrics = {"test_score": 0.9, "chance": 0.5, "test_texts": 100}
    for seed in (1, 2):
        params = jax.tree.map(lambda leaf, other: leaf + 0.3 * (other - leaf), base, random_params(model, seed))
        made.save(record_of(f"m{seed}", metrics=metrics), params, {"bias": np.zeros(2, np.float32)})
    return made


@pytest.mark.long
def test_explore_and_pareto_take_the_losses_of_decoders_from_the_command_line(store, tiny, tmp_path, capsys):
    names = ["calm", "loud"]
    words = ["some text to read", "and more of it", "a line that is longer", "the end", "a b c", "one two three"]
    for name, lines in zip(names, (words, [word.upper() + " !" for word in words]), strict=True):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    on = "--on=" + ",".join(str(tmp_path / f"{name}.txt") for name in names)
    call = [f"--store={store.path}", "--max_length=16", "--points=70", "--loss=language_model", on]
    page = tmp_path / "page.html"
    assert main(["explore", *call, f"--out={page}"]) == 0
    content = json.loads(page.read_text("utf-8").split('id="data">')[1].split("</script>")[0])
    calm = load_texts(tmp_path / "calm.txt", tiny.processor, max_length=16)
    exact = evaluate_language_model(wsr.open(store.path), np.eye(2), calm).language_model_loss
    kinds = content["exact"]["kinds"]
    found = [loss for loss, kind in zip(content["datasets"][0]["exact_losses"], kinds, strict=True) if kind == "member"]
    np.testing.assert_allclose(sorted(found), sorted(exact), atol=1e-5)

    rows = tmp_path / "rows.jsonl"
    capsys.readouterr()
    assert main(["pareto", *call, "--front=4", f"--out={rows}", f"--page={tmp_path / 'front.html'}"]) == 0
    printed = capsys.readouterr().out
    assert "perplexity" in printed
    assert "wsr merge" in printed
    scored = [json.loads(line) for line in rows.read_text().splitlines()]
    assert {row["metric"] for row in scored} == {"language_model_loss", "perplexity"}
    assert {row["group"] for row in scored} == {"front", "member", "centroid"}
    assert main(["pareto", *call, "--front=4", "--constraint=calm<=1"]) == 1
    assert "no point of the hull satisfies calm <= 1" in capsys.readouterr().err
    assert main(["pareto", *call, "--constraint=calm=1"]) == 1
    assert "expected DATASET>=SCORE or DATASET<=SCORE" in capsys.readouterr().err

    path = _written(tmp_path / "pairs.jsonl", PREFERENCES)
    call = [f"--store={store.path}", "--max_length=24", "--points=70", "--loss=choices", f"--on={path}"]
    assert main(["explore", *call, f"--out={page}"]) == 0
    assert "choice loss" in page.read_text("utf-8")
