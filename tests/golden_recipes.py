"""Makes tests/golden_recipes.npz: what mergekit 0.1.5 gives for recipes with gradients, slices, stages and adapters.

Run it where mergekit, PEFT and PyTorch are installed, none of which the tests need, from the root of the repository:

    python tests/golden_recipes.py

The models are Llamas of four layers and width 4. ``mergekit-yaml`` merges one document and ``mergekit-multi`` several.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

FILE = Path(__file__).resolve().with_suffix(".npz")
WIDTH, INNER, TOKENS, LAYERS = 4, 6, 10, 4
MODELS = ("base", "a", "b")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 2,
    "num_hidden_layers": LAYERS,
    "vocab_size": TOKENS,
    "max_position_embeddings": 16,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
ADAPTER = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "base",
    "r": 2,
    "lora_alpha": 3,
    "rank_pattern": {},
    "alpha_pattern": {"v_proj": 5},
    "use_rslora": True,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
}
RECIPES = {
    # As gradient-slerp: a gradient for each part of a layer.
    "gradients": """
slices:
  - sources:
      - {model: base, layer_range: [0, 4]}
      - {model: a, layer_range: [0, 4]}
merge_method: slerp
base_model: base
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: float32
""",
    # As ties: gradients of members and of all, filters, scientific notation.
    "ties": """
models:
  - model: a
    parameters:
      density: [1, 0.7, 1e-1]
      weight: 1.0
  - model: b
    parameters:
      density: 0.33
      weight:
        - {filter: mlp, value: [0.5, 1]}
        - {value: 0.2}
merge_method: ties
base_model: base
parameters:
  normalize: [true, false]
  int8_mask: true
dtype: float32
""",
    # As linear, with a gradient that the base has too.
    "linear": """
models:
  - {model: base, parameters: {weight: [0.1, 0.9]}}
  - {model: a, parameters: {weight: [1.0, 0.0, 0.5]}}
  - {model: b, parameters: {weight: 0.3}}
merge_method: linear
dtype: float32
""",
    # As orcamini-platy-44layer: more layers than a model has.
    "stacked": """
slices:
  - sources: [{model: a, layer_range: [0, 3]}]
  - sources: [{model: b, layer_range: [1, 4]}]
merge_method: passthrough
dtype: float32
""",
    # As gpt2-small: fewer layers.
    "cut": """
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
merge_method: passthrough
dtype: float32
""",
    "slices": """
slices:
  - sources:
      - {model: base, layer_range: [0, 2]}
      - {model: a, layer_range: [1, 3], parameters: {weight: 0.5}}
    parameters: {lambda: [0.5, 1.0]}
  - sources:
      - {model: base, layer_range: [3, 4]}
      - {model: b, layer_range: [0, 1], parameters: {weight: [{filter: layers.0.mlp, value: [0.4, 0.6]}, {value: 1}]}}
merge_method: task_arithmetic
base_model: base
dtype: float32
""",
    # As mega: the second stage merges the result of the first.
    "stages": """
name: first
slices:
  - sources:
      - {model: base, layer_range: [0, 4]}
      - {model: a, layer_range: [0, 4]}
merge_method: slerp
base_model: base
parameters:
  t: [{filter: self_attn, value: [0, 0.5, 1]}, {value: 0.5}]
dtype: float32
---
models:
  - {model: first, parameters: {density: [1, 0.7, 0.1], weight: 1.0}}
  - {model: b, parameters: {density: 0.33, weight: [{filter: mlp, value: 0.5}, {value: 0}]}}
merge_method: ties
base_model: base
parameters: {normalize: true, int8_mask: true}
dtype: float32
""",
    "adapter": """
models:
  - {model: base+lora, parameters: {weight: 0.7}}
  - {model: a, parameters: {weight: 0.4}}
merge_method: task_arithmetic
base_model: base
dtype: float32
""",
    "tokenizer": """
models:
  - {model: a, parameters: {weight: 0.7}}
  - {model: b, parameters: {weight: 0.4}}
merge_method: linear
base_model: base
parameters: {weight: 0.1}
tokenizer_source: union
dtype: float32
""",
    "tokenizer_of_the_base": """
models:
  - {model: a, parameters: {weight: 0.7}}
merge_method: task_arithmetic
base_model: base
tokenizer: {source: base}
dtype: float32
""",
}


def models():
    """The tensors of each model: a base, and members near it."""
    draw = np.random.default_rng(0)
    shapes = {"model.embed_tokens.weight": (TOKENS, WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"}
        shapes |= {f"{at}mlp.{part}_proj.weight": (INNER, WIDTH) for part in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (WIDTH, INNER)}
        shapes |= {f"{at}{part}_layernorm.weight": (WIDTH,) for part in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (WIDTH,), "lm_head.weight": (TOKENS, WIDTH)}
    base = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {
        name: base if name == "base" else {own: leaf + _near(draw, leaf.shape) for own, leaf in base.items()}
        for name in MODELS
    }


def adapter():
    """The tensors of an adapter, with PEFT's names."""
    draw = np.random.default_rng(7)
    found = {}
    for layer in range(LAYERS):
        for module, (outputs, inputs) in {
            "self_attn.q_proj": (WIDTH, WIDTH),
            "self_attn.v_proj": (WIDTH, WIDTH),
            "mlp.down_proj": (WIDTH, INNER),
        }.items():
            at = f"base_model.model.model.layers.{layer}.{module}"
            found[f"{at}.lora_A.weight"] = _near(draw, (2, inputs))
            found[f"{at}.lora_B.weight"] = _near(draw, (outputs, 2))
    return found


def save(folder):
    """Writes the models and the adapter as folders."""
    from safetensors.numpy import save_file

    words = {"<unk>": 0} | {f"w{number}": number for number in range(1, TOKENS)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    files = {
        "config.json": CONFIG,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"},
    }
    for name, tensors in models().items():
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})
        for file, content in files.items():
            (folder / name / file).write_text(json.dumps(content))
    (folder / "lora").mkdir()
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(ADAPTER))
    save_file(adapter(), folder / "lora" / "adapter_model.safetensors", {"format": "pt"})


def _near(draw, shape):
    return (draw.standard_normal(shape) / 3).astype(np.float32)


def main():
    import os

    from click.testing import CliRunner
    from mergekit.scripts.multimerge import main as multi
    from mergekit.scripts.run_yaml import main as one
    from safetensors.numpy import load_file

    found = {}
    for name, text in RECIPES.items():
        with tempfile.TemporaryDirectory() as place:
            save(Path(place))
            os.chdir(place)
            Path("recipe.yml").write_text(text)
            several = "\n---\n" in text
            flags = ["--out-path", "out", "-I", "stages"] if several else ["out", "--lora-merge-cache", "cache"]
            done = CliRunner().invoke(
                multi if several else one, ["recipe.yml", *flags, "--no-write-model-card"], catch_exceptions=False
            )
            assert done.exit_code == 0, done.output
            files = list(Path("out").glob("*.safetensors"))
            found |= {f"{name}/{path}": leaf for file in files for path, leaf in load_file(file).items()}
            layers = json.loads(Path("out/config.json").read_text())["num_hidden_layers"]
            found[f"{name}/num_hidden_layers"] = np.int64(layers)
            os.chdir("/")
    np.savez_compressed(FILE, **found)
    print(f"{FILE}: {FILE.stat().st_size / 1024:.0f} KiB, {len(RECIPES)} recipes")


if __name__ == "__main__":
    sys.exit(main())
