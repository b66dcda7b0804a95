"""A judge behind an OpenAI-compatible server, for the commands that judge recorded replies; standard library only.

Temperature 0, one request at a time, retried where that can help. The key is sent and never shown.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from ares_eval.verify.judge import JudgeError

TRIES = 4
WAITS = (1.0, 4.0, 15.0)
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
MAX_REPLY = 4 << 20


class HttpJudge:
    """``POST {base_url}/chat/completions``. ``max_tokens`` leaves room for a judge that thinks."""

    def __init__(
        self, model: str, base_url: str, api_key: str | None = None, *, timeout: float = 120.0, max_tokens: int = 2048
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"--judge-base-url must start with http:// or https://, not {base_url!r}")
        self._model = model
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._key = api_key
        self._timeout = timeout
        self._max_tokens = max_tokens

    @property
    def model(self) -> str:
        """The model's name as the server knows it."""
        return self._model

    def complete(self, prompt: str) -> str:
        """The reply's text; JudgeError where the server gives none after all tries."""
        body = json.dumps(
            {
                "model": self._model,
                "messages": [{"role": "user", "content": prompt}],
                "temperature": 0,
                "max_tokens": self._max_tokens,
            }
        ).encode()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        failure = "no try"
        for attempt in range(TRIES):
            request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as reply:
                    return _text(reply.read(MAX_REPLY))
            except urllib.error.HTTPError as error:
                failure = f"status {error.code}"
                error.close()
                if error.code not in RETRIED:
                    break
            except (OSError, http.client.HTTPException) as error:
                failure = type(error).__name__
            if attempt < len(WAITS):
                time.sleep(WAITS[attempt])
        raise JudgeError(f"the judge {self._model} did not answer: {failure}")


def _text(raw: bytes) -> str:
    try:
        decoded: Any = json.loads(raw)
        content = decoded["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise JudgeError("the judge's reply is no chat completion") from error
    return content if isinstance(content, str) else ""
