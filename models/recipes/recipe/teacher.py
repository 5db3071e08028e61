"""The frozen network that a config distils: EfficientNet-Lite or a custom backbone."""

from __future__ import annotations

from pathlib import Path

from . import backbone
from .backbone import Backbone
from .custom import partitioned
from .custom.partitioned import PartitionedBackbone


def load(config: dict, work: Path) -> Backbone | PartitionedBackbone:
    """The network that `config` names. A custom one is read from WORK, where `recipe custom` left it."""
    if is_custom(config):
        return partitioned.load(config["backbone"], work)
    return backbone.load(config["backbone"]["name"])


def is_custom(config: dict) -> bool:
    """Whether the config was written by `recipe custom`."""
    return "source" in config["backbone"]
