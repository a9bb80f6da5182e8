"""Lists the config attributes that the code of transformers reads, by architecture: a table that decides imports.

``python -m wsr.models.huggingface.read_attributes`` writes the table anew from the source of the installed
transformers, which it parses without importing PyTorch.
"""

import ast
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsr.models.huggingface.config import ATTRIBUTES_READ
from wsr.models.registry import architectures

# Modules outside an architecture's folder whose functions compute hidden states or logits from a config.
_SHARED = ("masking_utils", "modeling_layers", "modeling_rope_utils", "activations", "pytorch_utils")
# Initial weights are replaced by those of the file.
_NOT_FOLLOWED = ("_init_weights", "init_weights", "post_init", "_set_gradient_checkpointing")


def table_of_installed() -> dict[str, Any]:
    """Returns the table of all architectures that wsr reads, made from the installed transformers."""
    known = [architecture.counterpart for architecture in architectures().values()]
    classes: dict[str, tuple[str, str]] = {}
    for own in filter(None, known):
        kind, name = own.model_type, own.language_model_class if own.classes else own.model_class
        assert name is not None
        # An architecture of certain classes, such as T5 with its decoder, has an entry of its own.
        classes.setdefault(f"{kind}/{own.model_class}" if own.classes else kind, (kind, name))
    read = {entry: read_by(*classes[entry]) for entry in sorted(classes)}
    return {"transformers": version("transformers"), "read": read}


def main() -> None:
    """Writes the table."""
    ATTRIBUTES_READ.write_text(json.dumps(table_of_installed(), indent=1) + "\n", encoding="utf-8")
    print(f"written: {ATTRIBUTES_READ}")


def read_by(model_type: str, model_class: str) -> dict[str, list[str]]:
    """Returns the attributes that the encoder's code reads, and those that only the code of heads reads.

    Args:
      model_type: of the architecture, in transformers.
      model_class: class of the encoder without a head.
    """
    from transformers import AutoConfig

    folder = package_of(model_type)
    module = _Module.of(f"models/{folder}/modeling_{folder}")
    config = type(AutoConfig.for_model(model_type))
    properties = _properties(_Module.of(f"models/{folder}/configuration_{folder}"))

    def canonical(names: set[str]) -> set[str]:
        """Attributes as a config file has them: no other names, no methods, properties by what they are made from."""
        found: set[str] = set()
        for name in names:
            own = config.attribute_map.get(name, name)
            found |= canonical(properties[own]) if own in properties else {own}
        return {name for name in found if not callable(getattr(config, name, None))}

    encoder = canonical(_closure(module, model_class))
    heads = set().union(*(canonical(_closure(module, name)) for name in module.model_classes()))
    return {"encoder": sorted(encoder), "heads": sorted(heads - encoder)}


def package_of(model_type: str) -> str:
    """Returns the package of transformers that holds the classes of a ``model_type``."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    return str(model_type_to_module_name(model_type))


@dataclass
class _Module:
    """One parsed file of transformers."""

    name: str
    definitions: dict[str, ast.AST] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Names that come from another followed file: its module, and the name there."""
    parsed: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)
    """What ``contents`` returned before."""

    @classmethod
    @cache
    def of(cls, name: str) -> "_Module":
        root = importlib.util.find_spec("transformers")
        assert root is not None
        assert root.origin is not None
        path = Path(root.origin).parent / f"{name}.py"
        module = cls(name)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                module.definitions[node.name] = node
            elif isinstance(node, ast.Assign):
                module.definitions |= {own.id: node for own in node.targets if isinstance(own, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                module.definitions[node.target.id] = node
            elif isinstance(node, ast.ImportFrom) and node.level:
                source = _source(name, node)
                if source in _SHARED or (source.startswith("models/") and "/modeling_" in source):
                    module.imports |= {own.asname or own.name: (source, own.name) for own in node.names}
        return module

    def contents(self, symbol: str) -> tuple[set[str], set[str]]:
        """The attributes that a definition itself reads, and the names in it that this file defines or imports."""
        if symbol not in self.parsed:
            read: set[str] = set()
            names: set[str] = set()
            for node in _walk(self.definitions[symbol]):
                read |= _reads(node)
                if isinstance(node, ast.Name) and (node.id in self.definitions or node.id in self.imports):
                    names.add(node.id)
            self.parsed[symbol] = read, names
        return self.parsed[symbol]

    def model_classes(self) -> list[str]:
        """Names of the classes that end with a model or a head, which users load."""
        classes = [name for name, node in self.definitions.items() if isinstance(node, ast.ClassDef)]
        return [name for name in classes if "For" in name or name.endswith("Model")]


def _source(name: str, node: ast.ImportFrom) -> str:
    """Returns the module of a relative import, as a path below transformers."""
    parts = name.split("/")[: -node.level] + (node.module or "").split(".")
    return "/".join(part for part in parts if part)


def _closure(module: _Module, name: str) -> set[str]:
    """Returns the attributes read by a definition and by all that it names, in followed files."""
    read: set[str] = set()
    waiting, seen = [(module, name)], set()
    while waiting:
        own, symbol = waiting.pop()
        if (own.name, symbol) in seen:
            continue
        seen.add((own.name, symbol))
        if symbol in own.imports:
            source, original = own.imports[symbol]
            waiting.append((_Module.of(source), original))
        elif symbol in own.definitions:
            attributes, names = own.contents(symbol)
            read |= attributes
            waiting += [(own, name) for name in names]
    return read


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.FunctionDef) and child.name in _NOT_FOLLOWED):
            yield from _walk(child)


def _reads(node: ast.AST) -> set[str]:
    """Returns the attributes of a config that one expression reads: ``config.x`` or ``getattr(config, "x")``."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _is_config(node.value):
        return {node.attr}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")):
        return set()
    of, name = node.args[:2]
    return {str(name.value)} if _is_config(of) and isinstance(name, ast.Constant) else set()


def _is_config(node: ast.AST) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name == "config" or name.endswith("_config")


def _properties(module: _Module) -> dict[str, set[str]]:
    """Returns the attributes that each property of the config class in a file is computed from."""
    found = {}
    for node in module.definitions.values():
        for child in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(child, ast.FunctionDef) and any(_is_property(own) for own in child.decorator_list):
                found[child.name] = {
                    own.attr
                    for own in ast.walk(child)
                    if isinstance(own, ast.Attribute) and isinstance(own.value, ast.Name) and own.value.id == "self"
                } - {child.name}
    return found


def _is_property(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "property"


if __name__ == "__main__":
    main()
