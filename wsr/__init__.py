"""wsr: weight-space regions. Train, map, evaluate and merge populations of models fine-tuned from one checkpoint.

Everything a person types in a notebook is here; what it stands for is imported when it is first used, so that
``import wsr`` costs next to nothing. The verbs of the command line are functions of the same names (``import_`` for
``wsr import``); ``report`` is the room of figures and pages.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# transformers gives us configurations and tokenizers, which need no PyTorch: its advice that there is none is no news.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

if TYPE_CHECKING:
    from wsr import data as data
    from wsr import merging as merging
    from wsr import models as models
    from wsr import report as report
    from wsr.data.dataset import Dataset as Dataset
    from wsr.data.load import load_dataset as load_dataset
    from wsr.engine.choices import evaluate_choices as evaluate_choices
    from wsr.engine.early import Group as Group
    from wsr.engine.early import compare as compare
    from wsr.engine.evaluate import Evaluation as Evaluation
    from wsr.engine.evaluate import Protocol as Protocol
    from wsr.engine.evaluate import evaluate as evaluate
    from wsr.engine.language_model import evaluate_language_model as evaluate_language_model
    from wsr.engine.settings import Settings as Settings
    from wsr.engine.suggest import suggest as suggest
    from wsr.engine.surrogate import evaluate_hull as evaluate_hull
    from wsr.engine.zero_shot import evaluate_zero_shot as evaluate_zero_shot
    from wsr.errors import WsrError as WsrError
    from wsr.exchange.aligning import align as align
    from wsr.exchange.atlas import open_atlas as open_atlas
    from wsr.exchange.candidate import check as check
    from wsr.exchange.difference import diff as diff
    from wsr.exchange.extracting import extract as extract
    from wsr.exchange.importing import import_model as import_model
    from wsr.exchange.lineage import lineage as lineage
    from wsr.geometry import sampling as sampling
    from wsr.merging.run import merge as merge
    from wsr.merging.steps import average as average
    from wsr.models.huggingface import export as export
    from wsr.models.load import load as load
    from wsr.models.model import Checkpoint as Checkpoint
    from wsr.planning.by_numbers import plan as plan
    from wsr.region.learned import open_region as open_region
    from wsr.region.listing import ls as ls
    from wsr.region.made_up import made_up_region as made_up_region
    from wsr.region.population_map import map_region as map_region
    from wsr.region.region import Member as Member
    from wsr.region.region import Region as Region
    from wsr.region.region import from_params as from_params
    from wsr.report.explorer.explore import explore as explore
    from wsr.report.explorer.pareto import pareto as pareto
    from wsr.store.results import Results as Results
    from wsr.store.store import Store as Store
    from wsr.store.verification import verify as verify
    from wsr.studies.bench_merging import bench_merging as bench_merging
    from wsr.studies.demo import demo as demo
    from wsr.training.job import Job as Job
    from wsr.training.members import train_members as train_members
    from wsr.training.population import finetune as finetune
    from wsr.training.recipe import Recipe as Recipe

    import_ = import_model
    atlas = open_atlas
    open = open_region
    map = map_region
    train = train_members

_HOMES = {
    "Checkpoint": "wsr.models.model",
    "Dataset": "wsr.data.dataset",
    "Evaluation": "wsr.engine.evaluate",
    "Group": "wsr.engine.early",
    "Job": "wsr.training.job",
    "Member": "wsr.region.region",
    "Protocol": "wsr.engine.evaluate",
    "Recipe": "wsr.training.recipe",
    "Region": "wsr.region.region",
    "Results": "wsr.store.results",
    "Settings": "wsr.engine.settings",
    "Store": "wsr.store.store",
    "WsrError": "wsr.errors",
    "align": "wsr.exchange.aligning",
    "atlas": "wsr.exchange.atlas:open_atlas",
    "average": "wsr.merging.steps",
    "bench_merging": "wsr.studies.bench_merging",
    "check": "wsr.exchange.candidate",
    "compare": "wsr.engine.early",
    "data": "",
    "demo": "wsr.studies.demo",
    "diff": "wsr.exchange.difference",
    "evaluate": "wsr.engine.evaluate",
    "evaluate_choices": "wsr.engine.choices",
    "evaluate_hull": "wsr.engine.surrogate",
    "evaluate_language_model": "wsr.engine.language_model",
    "evaluate_zero_shot": "wsr.engine.zero_shot",
    "explore": "wsr.report.explorer.explore",
    "export": "wsr.models.huggingface",
    "extract": "wsr.exchange.extracting",
    "finetune": "wsr.training.population",
    "from_params": "wsr.region.region",
    "import_": "wsr.exchange.importing:import_model",
    "lineage": "wsr.exchange.lineage",
    "load": "wsr.models.load",
    "load_dataset": "wsr.data.load",
    "ls": "wsr.region.listing",
    "made_up_region": "wsr.region.made_up",
    "map": "wsr.region.population_map:map_region",
    "merge": "wsr.merging.run",
    "merging": "",
    "models": "",
    "open": "wsr.region.learned:open_region",
    "pareto": "wsr.report.explorer.pareto",
    "plan": "wsr.planning.by_numbers",
    "report": "",
    "sampling": "wsr.geometry",
    "suggest": "wsr.engine.suggest",
    "train": "wsr.training.members:train_members",
    "verify": "wsr.store.verification",
}
"""Where each name lives: a module, with the name there if it is another; nothing for a room of this package."""

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wsr' has no attribute {name!r}")
    module, _, there = _HOMES[name].partition(":")
    if not module:
        return importlib.import_module(f"wsr.{name}")
    home = importlib.import_module(module)
    found = getattr(home, there or name, None)
    value = importlib.import_module(f"{module}.{name}") if found is None else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
