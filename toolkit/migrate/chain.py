"""A PaddleDetection config with all that it is based on, each value with its place. Nothing in it is run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from toolkit.errors import UserError
from toolkit.places import expand

BASE = "_BASE_"


@dataclass(frozen=True)
class Value:
    """What a key says, and where."""

    value: Any
    """Plain data. `!Name {...}` is a mapping whose `name` is the tag, as is one that PaddleX wrote with `_type_`."""
    place: str
    """`file:line`."""
    places: tuple[str, ...] = ()
    """Of each element, where the value is a list."""


Tree = dict[str, "Tree | Value"]


def read_chain(path: Path) -> Tree:
    """The config at `path` over those in its `_BASE_`: mappings are merged, all else is replaced, later bases win.

    Raises UserError for what is missing, is no mapping, or is based on itself.
    """
    return _read(path, above=())


def flat(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Value]]:
    """Dotted keys and their values."""
    for key, node in tree.items():
        if isinstance(node, Value):
            yield prefix + key, node
        else:
            yield from flat(node, f"{prefix}{key}.")


def _read(path: Path, above: tuple[Path, ...]) -> Tree:
    if path.resolve() in above:
        raise UserError(f"{path}: {BASE}: is based on itself")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        of = f", which {above[-1]} is based on" if above else ""
        raise UserError(f"{path}: no such config{of}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: a config is a mapping")
    try:
        own = _tree(root, path)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    bases = own.pop(BASE, Value([], ""))
    listed = (
        [bases.value] if isinstance(bases, Value) and isinstance(bases.value, str) else getattr(bases, "value", None)
    )
    if not isinstance(listed, list) or not all(isinstance(base, str) for base in listed):
        raise UserError(f"{path}: {BASE}: must be a list of files")
    merged: Tree = {}
    for base in listed:
        merged = _merged(merged, _read(path.parent / expand(base), (*above, path.resolve())))
    return _merged(merged, own)


def _merged(below: Tree, above: Tree) -> Tree:
    result = dict(below)
    for key, node in above.items():
        under = result.get(key)
        result[key] = _merged(under, node) if isinstance(under, dict) and isinstance(node, dict) else node
    return result


def _tree(node: yaml.MappingNode, path: Path) -> Tree:
    tree: Tree = {}
    for key, value in node.value:
        name = str(key.value)
        if isinstance(value, yaml.MappingNode) and value.value:
            tree[name] = _tree(value, path)
            if tag := _tag(value):
                tree[name] = {"name": Value(tag, _place(value, path)), **_tree(value, path)}
        else:
            items = value.value if isinstance(value, yaml.SequenceNode) else []
            tree[name] = Value(_plain(value), _place(key, path), tuple(_place(item, path) for item in items))
    return tree


def _plain(node: yaml.Node) -> Any:
    tag = _tag(node)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        values = {str(key.value): _plain(value) for key, value in node.value}
        return _named({"name": tag, **values} if tag else values)
    if tag:
        return {"name": tag, **({"value": node.value} if node.value else {})}
    return yaml.SafeLoader("").construct_object(node)


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    return {("name" if key == "_type_" else key): value for key, value in values.items()}


def _tag(node: yaml.Node) -> str | None:
    return node.tag[1:] if node.tag.startswith("!") and len(node.tag) > 1 else None


def _place(node: yaml.Node, path: Path) -> str:
    return f"{os.path.normpath(path)}:{node.start_mark.line + 1}"
