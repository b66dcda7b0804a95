"""A verl configuration from one YAML file, the device's settings and the command line's, composed by Hydra.

The file is a Hydra primary config on top of one of verl's::

    defaults: [sft_trainer_engine, _self_]        # or ppo_trainer
    data: {train_batch_size: 256}

What counts more comes later: verl's defaults, the file, ``forced`` (what the device needs), the command line's
``key=value`` words (Hydra's grammar, so a key that is in neither file needs a ``+``). A file may build on a shipped
preset by its name, wherever it lies. verl itself is not imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ares_eval import resources
from ares_eval.config import ConfigError

_PLACES = ("defaults", "hydra")
"""Keys of a primary config that are Hydra's own and not part of what comes out."""


def compose(file: Path, overrides: Sequence[str] = (), *, forced: Sequence[str] = ()) -> Any:
    """The resolved DictConfig. Raises ConfigError, naming the key, for what Hydra or the file's syntax refuse."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not file.is_file():
        raise ConfigError(f"{file}: there is no such file")
    places = ",".join(f"'file://{folder}'" for folder in (presets_folder(), defaults_folder()))
    words = [f"hydra.searchpath=[{places}]", *forced, *overrides]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(file.parent.resolve()), version_base=None):
            config = hydra_compose(config_name=file.name, overrides=words)
        OmegaConf.resolve(config)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{file}: {_first_lines(error)}") from error
    return config


def write(config: Any, path: Path) -> None:
    """Write the resolved ``config`` as YAML, at once or not at all."""
    from omegaconf import OmegaConf

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(as_yaml(OmegaConf.to_container(config, resolve=True)), encoding="utf-8")
    part.replace(path)


def as_yaml(values: Mapping[str, Any]) -> str:
    """``values`` as YAML in their own order."""
    import yaml

    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=120)


def presets_folder() -> Path:
    """Where our own presets for training are."""
    return resources.folder("configs") / "train"


def defaults_folder() -> Path:
    """Where the installed verl keeps its YAML defaults; found without importing verl."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("verl is not installed: pip install 'ares[train]'")
    return Path(next(iter(spec.submodule_search_locations))) / "trainer" / "config"


def _first_lines(error: BaseException) -> str:
    """Hydra's message without its hints for programmers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:3])
