"""verl as installed has every name that ares_train relies on; another version or a missing name is told clearly."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from ares_train import verl_compat
from ares_train.verl_compat import IncompatibleVerl, Name


def test_the_installed_verl_has_every_name_of_the_table():
    assert verl_compat.check() == len(verl_compat.TABLE) > 15


def test_another_version_is_told_with_what_was_found_and_what_is_wanted(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.9.2")
    with pytest.raises(IncompatibleVerl, match=r"verl 0\.9\.2 is installed, ares_train needs verl==0\.9\.1"):
        verl_compat.check()


def test_no_verl_is_told_with_the_command_that_installs_it(monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(IncompatibleVerl, match=r"not installed.*pip install 'ares\[train\]'"):
        verl_compat.check()


def test_every_missing_name_and_parameter_is_in_the_one_error(monkeypatch):
    table = (
        Name("verl.protocol:DataProto", "is there"),
        Name("verl.protocol:Gone", "first"),
        Name("verl.nowhere:Thing", "second"),
        Name("verl.utils.model:convert_weight_keys", "third", ("state_dict", "invented")),
    )
    monkeypatch.setattr(verl_compat, "TABLE", table)
    with pytest.raises(IncompatibleVerl) as told:
        verl_compat.check()
    text = str(told.value)
    assert "verl.protocol:Gone (first)" in text
    assert "verl.nowhere:Thing (second)" in text
    assert "verl.utils.model:convert_weight_keys (third) has no parameter invented" in text
    assert "DataProto (is there)" not in text
    assert verl_compat.check(["verl.unrelated"]) == 0


ASK = """
import sys
{before}
import verl
from verl.plugin.platform import PlatformRegistry
print("platform", "cpu" in PlatformRegistry.registered_names())
print("early", "verl.workers.engine.base" in sys.modules)
from verl.workers.engine.base import EngineRegistry
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplicaRegistry
print("engine", "cpu" in EngineRegistry._engines["language_model"]["fsdp2"])
print("rollout", ("hf_cpu", "async") in _ROLLOUT_REGISTRY, "hf_cpu" in RolloutReplicaRegistry._registry)
"""


def report(environment: dict[str, str], before: str = "") -> dict[str, str]:
    """What a fresh process says of the registries."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VERL_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK.format(before=before)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_the_plugin_adds_the_cpu_backend_where_it_is_asked_for_and_imports_nothing_early():
    said = report({"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "ares_train.plugin"})
    assert said == {"platform": "True", "early": "False", "engine": "True", "rollout": "True True"}


def test_a_process_on_another_platform_sees_no_cpu_backend():
    said = report({"VERL_USE_EXTERNAL_MODULES": "ares_train.plugin"})
    assert said == {"platform": "False", "early": "False", "engine": "False", "rollout": "False False"}


def test_loaded_by_its_entry_point_beside_another_verl_the_plugin_stays_out_of_the_way():
    before = "import importlib.metadata as m; real = m.version; m.version = lambda n: '9' if n == 'verl' else real(n)"
    said = report({"VERL_PLATFORM": "nvidia"}, before)
    assert said["engine"] == "False"
