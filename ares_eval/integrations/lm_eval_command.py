"""`ares-lm-eval`: lm-eval's own command line, with our engine as `--model ares`, which is the default.

    ares-lm-eval --model_args model=NAME,base_url=http://127.0.0.1:8000/v1 --tasks gsm8k_cot --apply_chat_template

All flags are lm-eval's. The key is taken from OPENAI_API_KEY: lm-eval prints ``model_args`` and writes them into its
results, so a key there is refused before lm-eval sees it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from ares_eval.integrations import lm_eval_index

TARGET = "ares_eval.integrations.lm_eval_model:AresLM"
_SECRET = re.compile(r"(?:^|[,{\s\"'])(\w*(?:api_key|auth_token))\s*[=:\"']", re.I)


def main(argv: Sequence[str] | None = None) -> int:
    """Run lm-eval's command line; 2 for usage, 1 where requests were not answered."""
    words = list(sys.argv[1:] if argv is None else argv)
    if lm_eval_index.version() is None:
        print("ares-lm-eval: lm-eval is not installed: pip install 'ares[lm-eval]'", file=sys.stderr)  # noqa: T201
        return 2
    found = next((match for word in words if (match := _SECRET.search(word))), None)
    if found:
        problem = f"{found[1]} would be printed and written by lm-eval: set OPENAI_API_KEY in the environment instead"
        print(f"ares-lm-eval: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    register()
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["ares-lm-eval", *_with_model(words)]
    try:
        cli_evaluate()
    except (RuntimeError, ValueError) as error:
        if type(error).__module__ != TARGET.partition(":")[0]:
            raise
        print(f"ares-lm-eval: {error}", file=sys.stderr)  # noqa: T201
        return 2 if isinstance(error, ValueError) else 1
    return 0


def register() -> None:
    """Make `ares` a model of lm-eval. Its own models are registered first: it looks for them only while it has none."""
    import lm_eval.models  # noqa: F401 - registers them
    from lm_eval.api.registry import model_registry

    if "ares" not in model_registry:
        model_registry.register("ares", target=TARGET)


def _with_model(words: list[str]) -> list[str]:
    """The words with `--model ares` where no model is named and one is wanted."""
    command = words[0] if words and not words[0].startswith("-") else "run"
    named = any(word in ("--model", "-M", "-h", "--help") or word.startswith("--model=") for word in words)
    if command != "run" or named or not words:
        return words
    return [*words[:1], "--model", "ares", *words[1:]] if words[0] == "run" else ["--model", "ares", *words]


if __name__ == "__main__":
    sys.exit(main())
