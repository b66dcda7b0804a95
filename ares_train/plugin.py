"""What verl loads in every process, so that our engines, rollout servers and losses are known there.

``VERL_USE_EXTERNAL_MODULES=ares_train.plugin`` loads it, and so does the entry point group ``verl.plugins``. It costs
nothing until it is needed: each of our modules is imported right after the verl module whose registry it adds to
(``AFTER``; ``module:function`` is called as well). The CPU platform is there only where ``VERL_PLATFORM=cpu`` asks for
it; a process that trains on a GPU sees no difference but the additional names.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

from ares_train import verl_compat

AFTER: Mapping[str, tuple[str, ...]] = {
    "verl.workers.engine.fsdp.transformer_impl": ("ares_train.vision",),
}
"""verl module -> modules or ``module:function`` of ours for right after it, on every device."""

AFTER_ON_CPU: Mapping[str, tuple[str, ...]] = {
    "verl.workers.engine.fsdp.transformer_impl": ("ares_train.verl_cpu.engines",),
    "verl.utils.dataset.rl_dataset": ("ares_train.verl_cpu.pictures:reader",),
    "verl.utils.dataset.vision_utils": ("ares_train.verl_cpu.pictures:reader",),
    "verl.workers.config.model": ("ares_train.verl_cpu.pictures:processors",),
    "verl.workers.rollout.base": ("ares_train.verl_cpu.registration:adapter",),
    "verl.workers.rollout.replica": ("ares_train.verl_cpu.registration:replica",),
}
"""The same where VERL_PLATFORM=cpu."""


def _run(name: str) -> None:
    module, _, function = name.partition(":")
    found = importlib.import_module(module)
    if function:
        getattr(found, function)()


class _ThenOurs(importlib.abc.Loader):
    """Loads a verl module, checks the names that we rely on in it, then imports our modules that belong to it."""

    def __init__(self, loader: importlib.abc.Loader, ours: Sequence[str]) -> None:
        self.loader, self.ours = loader, ours

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        verl_compat.check([module.__name__])
        for name in self.ours:
            _run(name)


class _Finder(importlib.abc.MetaPathFinder):
    """Wraps the loader of each waiting verl module once."""

    def __init__(self) -> None:
        self.waiting: dict[str, tuple[str, ...]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        ours = self.waiting.pop(fullname, None)
        if ours is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenOurs(spec.loader, ours)
        return spec


_FINDER = _Finder()


def activate() -> None:
    """Have our modules imported after verl's, now for those that are already there. Again does nothing more."""
    on_cpu = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
    if on_cpu:
        importlib.import_module("ares_train.verl_cpu.platform")
    wanted: dict[str, tuple[str, ...]] = dict(AFTER)
    for name, ours in AFTER_ON_CPU.items() if on_cpu else ():
        wanted[name] = (*ours, *wanted.get(name, ()))
    for name, ours in wanted.items():
        if name in sys.modules:
            for each in ours:
                _run(each)
        else:
            _FINDER.waiting[name] = ours
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def _asked_for() -> bool:
    return __name__ in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",")


try:
    verl_compat.check_version()
except verl_compat.IncompatibleVerl as problem:
    # Loaded by the entry point only, this process is somebody else's run of verl: it must not fail because of us.
    if _asked_for():
        raise
    logging.getLogger(__name__).warning("ares_train.plugin stays inactive: %s", problem)
else:
    activate()
