"""A task as its YAML defines it, checked: what is asked, of which data, and what kind of answer is expected.

lm-eval's keys keep lm-eval's meaning. A key that would change the prompt or the score in lm-eval and that this
reader does not run (few-shots, log-likelihood) is an error here, never ignored. Our own keys lie under `metadata:`;
docs/tasks.md lists them all.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ares_eval.task_metrics import GROUP_METRICS, METRICS
from ares_eval.tasks.official import RULES
from ares_eval.tasks.templates import TemplateError, column_or_template, expression
from ares_eval.tasks.yaml_task import FunctionRef, YamlTask, read_yaml

ANSWER_TYPES = (
    "number", "choice", "latex", "structured", "list", "yesno", "date", "text", "multipart", "auto",
)  # fmt: skip
MODALITIES = ("text", "image+text")

_RUN_KEYS = {"task", "dataset_path", "dataset_name", "dataset_kwargs", "test_split", "output_type", "repeats"}
_TEXT_KEYS = {"doc_to_text", "doc_to_target", "doc_to_image", "metadata"}
# Used by lm-eval alone: how it generates, filters and scores, and how it names and builds its datasets.
_LM_EVAL_KEYS = {
    "tag", "task_alias", "custom_dataset", "process_docs", "process_results", "generation_kwargs", "filter_list",
    "metric_list", "num_fewshot", "training_split", "validation_split", "fewshot_split", "target_delimiter",
    "should_decontaminate", "doc_to_decontamination_query", "unsafe_code",
}  # fmt: skip
_METADATA_KEYS = {
    "version", "description", "suites", "modality", "metrics", "size", "id", "group", "level", "fields", "keep",
    "answer", "splits", "variants", "variant_of", "folders", "hub", "native", "shipped", "tsv", "official", "evidence",
    "reference", "gated", "licence",
}  # fmt: skip
# Changing these changes neither a question nor its score.
_NOT_FINGERPRINTED = {
    "description", "suites", "size", "official", "evidence", "reference", "licence", "gated", "variant_of", "folders",
}  # fmt: skip


@dataclass(frozen=True)
class AnswerRule:
    """One entry of `metadata.answer`: the spec for the rows for which ``when`` is true (always, where it is None).

    ``type``, ``policy`` and each policy value may be computed from the row: ``{from: expression}``.
    """

    type: str | Mapping[str, str]
    policy: Mapping[str, Any]
    when: str | FunctionRef | None = None
    choices: str | FunctionRef | None = None


@dataclass(frozen=True)
class NativeLayout:
    """The benchmark's own files, as its authors publish them.

    ``files``: split -> paths below the task's folder, the first that is there counts; a path with ``*`` stands for all
    files that it fits, in the order of their names. ``key``: column that takes the keys of a JSON object of objects.
    ``rows``: the member of a JSON object that holds the list of rows. ``columns``: Hub column -> expression over the
    native row. ``pictures``: Hub column -> expression that gives the picture's path below the task's folder
    (``file_folder`` and ``file_stem`` are the folder and the name of the row's file).
    """

    files: Mapping[str, tuple[str, ...]]
    key: str | None = None
    rows: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HubLayout:
    """A dataset of the Hugging Face hub. ``config`` None: the default one.

    ``configs``: several, read one after the other (``interleaved``: row by row across them); column ``config`` says
    which one a row is from.
    """

    path: str
    config: str | None = None
    revision: str = "main"
    configs: tuple[str, ...] = ()
    interleaved: bool = False


@dataclass(frozen=True)
class TsvLayout:
    """A VLMEvalKit TSV: file name without `.tsv`, Hub column -> expression over its row, Hub column -> TSV column
    that holds base64 pictures."""

    name: str
    columns: Mapping[str, str]
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class Definition:
    """One task. ``splits``: in order of preference. ``variants``: splits that are read side by side instead.

    ``folders``: names of its folder below `--dataset-dir`, its own first. ``variant_of``: the task that it is another
    setting of, which alone is part of the suite `all`.
    """

    name: str
    yaml: YamlTask
    suites: tuple[str, ...]
    modality: str
    metrics: tuple[str, ...]
    repeats: int
    size: int | None
    hub: HubLayout | None
    native: NativeLayout | None
    shipped: bool
    tsv: TsvLayout | None
    splits: tuple[str, ...]
    variants: tuple[str, ...]
    answers: tuple[AnswerRule, ...]
    images: tuple[str, ...] | FunctionRef
    folders: tuple[str, ...] = ()
    variant_of: str | None = None

    @property
    def file(self) -> Path:
        """The task's YAML."""
        return self.yaml.file

    @property
    def config(self) -> Mapping[str, Any]:
        """The merged mapping, as written."""
        return self.yaml.config

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Our additions."""
        metadata: Mapping[str, Any] = self.config["metadata"]
        return metadata

    @property
    def official(self) -> Mapping[str, Any]:
        """The authors' protocol: prompt and scorer in words; ``rule``: the scorer's name in official.py; ``judge``."""
        official: Mapping[str, Any] = self.metadata.get("official", {})
        return official

    @property
    def grouped(self) -> bool:
        """Whether a metric needs whole groups."""
        return not GROUP_METRICS.isdisjoint(self.metrics)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that changes a question, its reference or its score: merged YAML and functions."""
        import msgspec

        config = {key: value for key, value in self.config.items() if key not in _LM_EVAL_KEYS}
        config["metadata"] = {key: self.metadata[key] for key in self.metadata if key not in _NOT_FINGERPRINTED}
        if "rule" in self.official:
            config["metadata"]["official_rule"] = self.official["rule"]
        functions = sorted({path for ref in _functions(config) if (path := ref.path()) is not None})
        whole = hashlib.sha256(msgspec.json.encode(_plain(config), order="sorted"))
        for path in functions:
            whole.update(hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()


def read_definition(file: Path) -> Definition:
    """Read and check a task file. Raises BrokenTask with file and line."""
    yaml = read_yaml(file)
    config = yaml.config
    if unknown := sorted(set(config) - _RUN_KEYS - _TEXT_KEYS - _LM_EVAL_KEYS):
        raise yaml.error(f"key {unknown[0]!r} is not run by this reader", unknown[0])
    if not isinstance(config.get("task"), str):
        raise yaml.error("task: must name the task, e.g. ares_gsm8k", "task")
    if config.get("output_type", "generate_until") != "generate_until":
        raise yaml.error(f"output_type {config['output_type']!r}: only generate_until is run", "output_type")
    if config.get("num_fewshot"):
        raise yaml.error("num_fewshot: few-shot prompts are not run by this reader", "num_fewshot")
    for key in ("doc_to_text", "doc_to_target"):
        if not isinstance(config.get(key), (str, FunctionRef)) or config[key] == "":
            raise yaml.error(f"{key}: must be a column, a template or a function", key)
    metadata = config.get("metadata")
    if not isinstance(metadata, dict):
        raise yaml.error("metadata: is missing; it says what kind of answer is expected", "metadata")
    if unknown := sorted(set(metadata) - _METADATA_KEYS):
        raise yaml.error(f"metadata: unknown key {unknown[0]!r}", "metadata", unknown[0])
    _check_official(yaml)
    modality = _one_of(yaml, metadata.get("modality", "text"), MODALITIES, "modality")
    metrics = tuple(_one_of(yaml, m, ("accuracy", *METRICS), "metrics") for m in _texts(yaml, "metrics", ["accuracy"]))
    splits = _texts(yaml, "splits", [config.get("test_split", "test")])
    return Definition(
        name=file.stem,
        yaml=yaml,
        suites=_texts(yaml, "suites", []),
        modality=modality,
        metrics=metrics,
        repeats=_count(yaml, config.get("repeats", 1), "repeats"),
        size=_count(yaml, metadata["size"], "metadata", "size") if "size" in metadata else None,
        hub=_hub(yaml),
        native=_native(yaml, "shipped" if "shipped" in metadata else "native"),
        shipped="shipped" in metadata,
        tsv=_tsv(yaml),
        splits=splits,
        variants=_texts(yaml, "variants", []),
        answers=_answers(yaml),
        images=_images(yaml),
        folders=(file.stem, *_texts(yaml, "folders", [])),
        variant_of=_variant_of(yaml),
    )


def _answers(yaml: YamlTask) -> tuple[AnswerRule, ...]:
    written = yaml.config["metadata"].get("answer")
    entries = written if isinstance(written, list) else [written]
    rules = []
    for number, entry in enumerate(entries):
        where = ("metadata", "answer", str(number)) if isinstance(written, list) else ("metadata", "answer")
        if not isinstance(entry, dict) or not (computed(entry.get("type")) or entry.get("type") in ANSWER_TYPES):
            raise yaml.error(f"answer: needs a type, one of {', '.join(ANSWER_TYPES)}", *where)
        if unknown := sorted(set(entry) - {"type", "when", "choices", "policy"}):
            raise yaml.error(f"answer: unknown key {unknown[0]!r}", *where, unknown[0])
        policy = entry.get("policy", {})
        if not isinstance(policy, dict):
            raise yaml.error("answer: policy must be a mapping", *where, "policy")
        for key in ("when", "choices"):
            if entry.get(key) is not None and not is_expression(entry[key]):
                raise yaml.error(f"answer: {key} must be a Jinja2 expression", *where, key)
        rules.append(AnswerRule(entry["type"], policy, entry.get("when"), entry.get("choices")))
    if rules[-1].when is not None:
        raise yaml.error("answer: the last rule must have no `when`, so that every row has one", "metadata", "answer")
    return tuple(rules)


def computed(value: Any) -> bool:
    """Whether a value is ``{from: expression}``."""
    return isinstance(value, dict) and set(value) == {"from"} and is_expression(value["from"])


def is_expression(value: Any) -> bool:
    """Whether a value can be an expression: Jinja2, or a `!function` that takes the row."""
    return isinstance(value, (str, FunctionRef))


def _check_official(yaml: YamlTask) -> None:
    written = yaml.config["metadata"].get("official", {})
    if not isinstance(written, dict):
        raise yaml.error("official: must be a mapping", "metadata", "official")
    if "rule" in written and written["rule"] not in RULES:
        raise yaml.error(f"official: rule is not one of {', '.join(RULES)}", "metadata", "official", "rule")


def _variant_of(yaml: YamlTask) -> str | None:
    written = yaml.config["metadata"].get("variant_of")
    if written is not None and not isinstance(written, str):
        raise yaml.error("variant_of: must name a task", "metadata", "variant_of")
    return written


def _images(yaml: YamlTask) -> tuple[str, ...] | FunctionRef:
    written = yaml.config.get("doc_to_image")
    if isinstance(written, FunctionRef):
        return written
    columns = [written] if isinstance(written, str) else written or []
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise yaml.error("doc_to_image: must be a column, a list of columns or a function", "doc_to_image")
    return tuple(columns)


def _native(yaml: YamlTask, key: str) -> NativeLayout | None:
    written = yaml.config["metadata"].get(key)
    if written is None:
        return None
    where = ("metadata", key)
    if not isinstance(written, dict) or not isinstance(written.get("files"), dict):
        raise yaml.error(f"{key}: needs `files:`, a mapping of splits to paths", *where)
    if unknown := sorted(set(written) - {"files", "key", "rows", "columns", "pictures"}):
        raise yaml.error(f"{key}: unknown key {unknown[0]!r}", *where, unknown[0])
    files = {}
    for split, paths in written["files"].items():
        listed = [paths] if isinstance(paths, str) else paths
        if not isinstance(listed, list) or not all(isinstance(p, str) and _inside(p) for p in listed):
            raise yaml.error(f"{key}: paths must be texts that stay below the folder", *where, "files", str(split))
        files[str(split)] = tuple(listed)
    columns, pictures = (_expressions(yaml, written, *where, name) for name in ("columns", "pictures"))
    return NativeLayout(files, written.get("key"), written.get("rows"), columns, pictures)


def _hub(yaml: YamlTask) -> HubLayout | None:
    config, metadata = yaml.config, yaml.config["metadata"]
    written = metadata.get("hub", {})
    if not isinstance(written, dict) or set(written) - {"path", "config", "revision", "configs", "interleaved"}:
        raise yaml.error("hub: must be a mapping of path, config, revision, configs, interleaved", "metadata", "hub")
    configs = written.get("configs", [])
    if not isinstance(configs, list) or not all(isinstance(name, str) for name in configs):
        raise yaml.error("hub: configs must be a list of names", "metadata", "hub", "configs")
    path = written.get("path", config.get("dataset_path"))
    if path is None or "shipped" in metadata:
        return None
    if not isinstance(path, str):
        raise yaml.error("dataset_path: must be the Hub's id of a dataset", "dataset_path")
    kwargs = config.get("dataset_kwargs") or {}
    return HubLayout(
        path,
        written.get("config", config.get("dataset_name")),
        written.get("revision", kwargs.get("revision", "main")),
        tuple(configs),
        bool(written.get("interleaved", False)),
    )


def _tsv(yaml: YamlTask) -> TsvLayout | None:
    written = yaml.config["metadata"].get("tsv")
    if written is None:
        return None
    where = ("metadata", "tsv")
    if not isinstance(written, dict) or not isinstance(written.get("name"), str) or not _inside(written["name"]):
        raise yaml.error("tsv: needs `name:`, the file's name without .tsv", *where)
    columns, pictures = (_expressions(yaml, written, *where, name) for name in ("columns", "pictures"))
    return TsvLayout(written["name"], columns, pictures)


def _expressions(yaml: YamlTask, owner: Mapping[str, Any], *where: str) -> dict[str, str]:
    """A mapping of names to expressions. They are compiled when the task is loaded: listing needs no Jinja2."""
    written = owner.get(where[-1], {})
    if not isinstance(written, dict):
        raise yaml.error(f"{where[-1]}: must be a mapping of columns to expressions", *where)
    for name, source in written.items():
        if not is_expression(source):
            raise yaml.error(f"{where[-1]}: {name} must be a Jinja2 expression", *where, str(name))
    return written


def compile_text(definition: Definition, key: str) -> Any:
    """The callable of doc_to_text or doc_to_target: row -> text or value."""
    source = definition.config[key]
    if isinstance(source, FunctionRef):
        return source.load()
    try:
        return column_or_template(source)
    except TemplateError as error:
        raise definition.yaml.error(f"{key}: {error}", key) from error


def compile_expression(definition: Definition, source: str | FunctionRef, *keys: str) -> Any:
    """The callable of an expression under `metadata:`; an error names the line of ``keys``."""
    if isinstance(source, FunctionRef):
        return source.load()
    try:
        return expression(source)
    except TemplateError as error:
        raise definition.yaml.error(str(error), "metadata", *keys) from error


def _inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/") and "\\" not in path


def _texts(yaml: YamlTask, key: str, default: list[Any]) -> tuple[str, ...]:
    written = yaml.config["metadata"].get(key, default)
    listed = [written] if isinstance(written, str) else written
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise yaml.error(f"{key}: must be a list of names", "metadata", key)
    return tuple(listed)


def _one_of(yaml: YamlTask, value: Any, allowed: tuple[str, ...], key: str) -> str:
    if value not in allowed:
        raise yaml.error(f"{key}: {value!r} is not one of {', '.join(allowed)}", "metadata", key)
    return str(value)


def _count(yaml: YamlTask, value: Any, *where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise yaml.error(f"{where[-1]}: must be a whole number from 1, not {value!r}", *where)
    return value


def _functions(value: Any) -> list[FunctionRef]:
    if isinstance(value, FunctionRef):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [ref for item in items for ref in _functions(item)]


def _plain(value: Any) -> Any:
    if isinstance(value, FunctionRef):
        return f"!function {value.module}.{value.name}"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
