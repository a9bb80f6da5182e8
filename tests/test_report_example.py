"""A made-up report of the size of the demo: 21 members of 7 datasets in 3 families, every kind of figure."""

import numpy as np

from wsr.report.document import Document, Figure, Section, Table

DATASETS = {
    "vader_movie": "sentiment",
    "vader_amazon": "sentiment",
    "vader_nyt": "sentiment",
    "vader_tweets": "sentiment",
    "newsgroups_comp": "topic",
    "reuters_r8": "topic",
    "election_tweets": "author",
}
ALPHAS = [round(0.1 * step, 1) for step in range(11)]
COMMAND = "wsr demo --output=runs/demo --datasets=vader_movie,vader_amazon,vader_nyt,vader_tweets --seeds=3"


def names(seeds: int = 3) -> list[str]:
    return [f"{dataset}/{seed}" for dataset in DATASETS for seed in range(seeds)]


def groups(seeds: int = 3) -> list[str]:
    return [dataset for dataset in DATASETS for _ in range(seeds)]


def heatmap(seeds: int = 3) -> Figure:
    noise = np.random.default_rng(0)
    datasets = np.array(groups(seeds))
    families = np.array([DATASETS[dataset] for dataset in datasets])
    matrix = np.where(datasets[:, None] == datasets, 0.24, np.where(families[:, None] == families, 0.08, 0.02))
    matrix = matrix + noise.normal(0, 0.02, matrix.shape)
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    data = {
        "matrix": matrix,
        "names": names(seeds),
        "groups": groups(seeds),
        "value_label": "cosine of task vectors",
    }
    return Figure(
        "heatmap",
        "Similarity of the task vectors",
        "Cosine of every two members. Blocks on the diagonal are seeds of one dataset.",
        data,
    )


def map_of_models() -> Figure:
    noise = np.random.default_rng(1)
    centres = {name: noise.normal(0, 30, 2) for name in DATASETS}
    points = np.array([centres[group] + noise.normal(0, 2.5, 2) for group in groups()])
    return Figure(
        "map",
        "Map of the members",
        "t-SNE of 1 - cosine, perplexity 6. Colour is the dataset, shape the family.",
        {
            "x": points[:, 0],
            "y": points[:, 1],
            "names": names(),
            "groups": groups(),
            "families": [DATASETS[group] for group in groups()],
            "marks": [{"x": 0.0, "y": 0.0, "label": "pretrained"}],
        },
    )


def tree() -> Figure:
    """Two pairs that join, by hand: nothing of it comes from the package."""
    merges = [(0, 1, 0.71), (2, 3, 0.74), (4, 5, 0.93)]
    return Figure(
        "dendrogram",
        "Tree of four members",
        "Average linkage of 1 - cosine; the dashed line cuts it into two clusters.",
        {
            "merges": [{"left": left, "right": right, "height": height} for left, right, height in merges],
            "names": names(2)[:4],
            "groups": groups(2)[:4],
            "height_label": "1 - cosine, mean between two branches",
            "cut": 0.8,
        },
    )


def lines(count: int = 12) -> Figure:
    noise = np.random.default_rng(2)
    kinds = {"same dataset": -0.02, "same family": 0.01, "across families": 0.09}
    alphas = np.array(ALPHAS)
    series = []
    for kind, height in kinds.items():
        for pair in range(count):
            start, end = noise.normal(0.55, 0.03, 2)
            loss = (1 - alphas) * start + alphas * end + 4 * alphas * (1 - alphas) * (height + noise.normal(0, 0.01))
            series.append({"name": f"{kind}, pair {pair}", "group": kind, "x": alphas, "y": loss})
    return Figure(
        "curves",
        "Loss along the line between two members",
        "Generalised loss on vader_movie; alpha 0 and 1 are the members themselves.",
        {
            "series": series,
            "x_label": "alpha",
            "y_label": "generalised loss",
            "marks": [{"x": 0, "label": "first member"}, {"x": 1, "label": "second member"}],
        },
    )


def extrapolation() -> Figure:
    alphas = np.array([-31, -15, -7, -3, -1, 0, 0.5, 1, 2, 4, 8, 16, 32])
    series = []
    for name, curvature in (
        ("vader_movie/0 to vader_movie/1", 0.004),
        ("random direction of the same norm", 0.002),
    ):
        loss = 0.5 + 0.4 * np.tanh(curvature * alphas**2)
        series.append({"name": name, "x": alphas, "y": loss, "low": loss - 0.03, "high": loss + 0.03})
    return Figure(
        "curves",
        "Past the members",
        "Alpha below 0 and above 1 leaves the segment; the band is one standard deviation over three pairs.",
        {
            "series": series,
            "x_label": "alpha",
            "y_label": "generalised loss",
            "x_scale": "symlog",
            "marks": [{"x": 0, "label": "first member"}, {"x": 1, "label": "second member"}],
        },
    )


def strips() -> Figure:
    noise = np.random.default_rng(3)
    panels = []
    for dataset in list(DATASETS)[:6]:
        level = noise.uniform(0.2, 0.6)
        panels.append(
            {
                "title": dataset,
                "groups": [
                    {
                        "name": name,
                        "values": level + shift + noise.normal(0, 0.012, count),
                        "names": [f"{name} {k}" for k in range(count)],
                    }
                    for name, shift, count in (("In", 0.0, 9), ("In'", -0.015, 9), ("Ex", 0.1, 12))
                ],
            }
        )
    return Figure(
        "groups",
        "Members, the interior of their hull, and the rest",
        "Level of the task: members of the family without the dataset tested.",
        {"panels": panels, "y_label": "generalised loss (each panel has its own scale)"},
    )


def starts() -> Figure:
    noise = np.random.default_rng(4)
    rows = []
    for dataset in DATASETS:
        series = []
        for name, gain in (
            ("pretrained", 0.0),
            ("centroid of all others", 0.02),
            ("centroid of its family", 0.015),
        ):
            values = noise.uniform(0.68, 0.8) + gain + noise.normal(0, 0.02, 5)
            mean, half = float(np.mean(values)), 2.8 * float(np.std(values, ddof=1)) / 5**0.5
            series.append({"name": name, "mean": mean, "low": mean - half, "high": mean + half, "values": values})
        rows.append({"name": dataset, "series": series})
    return Figure(
        "intervals",
        "Few-shot accuracy by starting point",
        "BitFit on 128 examples, five seeds; mean and 95 % interval. The target's own members are left out.",
        {"rows": rows, "x_label": "accuracy on the target's test split"},
    )


def plane() -> Figure:
    x, y = np.linspace(-4.0, 7.0, 7), np.linspace(-4.0, 6.0, 6)
    across, up = np.meshgrid(x, y)
    corners = ((0.0, 0.0, "vader_movie/0"), (3.0, 0.0, "vader_movie/1"), (1.4, 2.5, "vader_movie/2"))
    marks = [{"x": a, "y": b, "label": label, "group": "members"} for a, b, label in corners]
    return Figure(
        "contours",
        "The plane through three members",
        "Generalised loss on vader_movie; a dot for each point that was evaluated.",
        {
            "x": x,
            "y": y,
            "values": 0.48 + 0.004 * ((across - 1.5) ** 2 + (up - 0.8) ** 2),
            "x_label": "towards the second member (L2 distance of weights)",
            "y_label": "away from that line (L2 distance of weights)",
            "value_label": "generalised loss (nats)",
            "outlines": [{"x": [0.0, 3.0, 1.4, 0.0], "y": [0.0, 0.0, 2.5, 0.0]}],
            "marks": [
                *marks,
                {"x": 1.47, "y": 0.83, "label": "centroid", "group": "centroid"},
                {"x": 1.5, "y": 0.8, "label": "pretrained", "group": "base"},
            ],
        },
    )


def triangle() -> Figure:
    steps = 4
    rows = [[a, b, steps - a - b] for a in range(steps + 1) for b in range(steps + 1 - a)]
    coefficients = np.array(rows) / steps
    return Figure(
        "triangle",
        "Between three members",
        "Generalised loss on vader_movie; a dot for each point that was evaluated.",
        {
            "corners": ["vader_movie/0", "vader_movie/1", "vader_movie/2"],
            "coefficients": coefficients,
            "values": 0.48 + 0.06 * np.square(coefficients - 1 / 3).sum(axis=1),
            "value_label": "generalised loss (nats)",
            "marks": [{"coefficients": [1 / 3, 1 / 3, 1 / 3], "label": "centroid"}],
        },
    )


def accuracy_table() -> Table:
    noise = np.random.default_rng(5)
    rows = tuple(
        (name, group, DATASETS[group], float(noise.uniform(0.6, 0.95)), float(noise.uniform(1, 3)), 128_000)
        for name, group in zip(names(), groups(), strict=True)
    )
    columns = ("member", "dataset", "family", "accuracy", "norm of task vector", "tokens seen")
    return Table("Accuracy of each member on its own test split", columns, rows, "Chance is 1 / classes.")


def scores_table() -> Table:
    return Table(
        "Clustering scores",
        (
            "clustering",
            "by",
            "one-to-one accuracy",
            "majority accuracy",
            "ARI",
            "F1 sentiment",
            "F1 topic",
            "F1 author",
        ),
        (
            ("spectral", "dataset", 1.0, 1.0, 1.0, None, None, None),
            ("average linkage", "dataset", 1.0, 1.0, 1.0, None, None, None),
            ("spectral", "family", 0.619, 0.762, 0.31, 0.727, 0.571, 0.0),
            ("average linkage", "family", 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        ),
    )


def document() -> Document:
    sections = (
        Section(
            "Do the members learn?",
            "What accuracy does each member reach on the test split of its own dataset?",
            "Mean over 36 datasets 76.2 % (RoBERTa-base, 20 seeds).",
            "Mean over 7 datasets 81.4 % (MiniLM-L6, 3 seeds); 1 of 21 members not learned.",
            "holds",
            ("One member of election_tweets stayed at chance: flagged, and left out of every group below.",),
            (),
            (accuracy_table(),),
            "wsr ls runs/demo",
            "20 of 21 models learned their dataset: the mean score on test texts is 81.4 %.",
            "mean 76.2 % over 36 datasets",
            "20 of 21 learned, mean 81.4 %",
        ),
        Section(
            "Do members of one dataset lie together?",
            "Can the dataset of a member be told from the direction of its task vector alone?",
            "98 % of 280 models by dataset, 90 % by task (spectral clustering on cosines).",
            "100 % of 20 models by dataset; by family 62 % (paper's recipe), 100 % (average linkage).",
            "holds in part",
            (
                "Seeds of one dataset have a mean cosine of 0.24, datasets of one family 0.08, others 0.02.",
                "The spectral recipe splits the larger family when another family holds a single dataset.",
            ),
            (heatmap(), map_of_models(), tree()),
            (scores_table(),),
            "wsr map runs/demo --by=dataset --by=family",
            "Models trained on one dataset sit together: every one of 20 is nearest its own group (cosine 0.24 within, "
            "0.02 across).",
            "98 % by dataset, 90 % by task",
            "100 % by dataset, 62 to 100 % by family",
        ),
        Section(
            "Is the way between two members flat?",
            "Is the loss between two members as low as at its ends?",
            "Yes, and often lowest strictly between (MNLI with MNLI, ESNLI and SST2).",
            "Barrier -0.02 in one dataset, 0.01 in one family, 0.09 across families.",
            "holds",
            (),
            (lines(), extrapolation()),
            (),
            "wsr evaluate runs/demo --line --alphas=11",
            "On the straight line between two models the loss rises by no more than 0.09 nats, mean over pairs.",
            "flat, often lowest between",
            "mean barrier at most 0.09 nats",
        ),
        Section(
            "Is the inside better than its corners?",
            "Do points inside the hull of the members beat the members themselves?",
            "P_B(In' > In) 88 % in one dataset, 96.7 % in one task, 90 % in general.",
            "P_B(In' > In) 71 % [58, 82] in one dataset, 54 % [44, 64] in one family.",
            "refuted",
            ("Members trained shortly stop before the rim of the basin: their distance still grew at the end.",),
            (strips(), triangle(), plane()),
            (),
            "wsr evaluate runs/demo --hull --levels=dataset,task,general",
            "A random mixture of models beats these models in 71 % of comparisons.",
            "88 to 97 % against members",
            "71 % against members",
        ),
        Section(
            "Is the centroid a better start?",
            "Does few-shot training from the centroid beat training from the pretrained model?",
            "Better in 11 of 12 datasets, +3.06 accuracy on average.",
            "Better in 5 of 7 datasets, +1.9 [0.4, 3.3] accuracy on average.",
            "holds in part",
            (),
            (starts(),),
            (),
            "wsr demo --only=centroid",
            "From the average of other datasets' models, training scores +1.9 points over the pretrained model.",
            "+3.06 points, better on 11 of 12",
            "+1.9 points, better on 5 of 7",
        ),
        Section(
            "Does the starting checkpoint matter?",
            "Do models of two pretrainings cluster by checkpoint?",
            "Yes.",
            "One checkpoint only was packaged.",
            "not tested",
        ),
    )
    return Document(
        "Knowledge is a region in weight space: MiniLM-L6 on packaged corpora",
        (
            "20 of 21 members learned their dataset, and their directions alone tell which dataset it was.",
            "The way between members of one dataset is flat; between families there is a barrier of 0.09.",
            "Few-shot training from the centroid of other datasets gains 1.9 points of accuracy on average.",
            "Points inside the hull do not beat the members themselves at this size of training.",
        ),
        {
            "base": "MiniLM-L6-H384 (22.7M parameters)",
            "datasets": "7 of 3 families",
            "members": "21, 3 seeds each",
            "training": "full, 60 steps of 32 texts, AdamW 1e-4",
            "device": "cpu, 2 cores",
            "versions": "wsr 0.1.0, jax 0.10.0, Python 3.11.2",
            "time": "6 min 12 s",
            "command": COMMAND,
        },
        sections,
    )
