"""Exact token entropies by a forward pass of a Hugging Face checkpoint over recorded replies (extra [hf]).

The question is rendered by the checkpoint's chat template and the reply follows, token by token as it was sampled where
tokens are recorded, else as the tokenizer splits its text. Entropies are those of the whole next-token distribution at
temperature 1 unless told otherwise. Tokens go through the model in blocks with a key-value cache, so memory is that of
one block's logits, never of a whole reply's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ares_eval.analysis.entropy import EXACT
from ares_eval.analysis.scoring import CannotScore
from ares_eval.analysis.trail import whole_text
from ares_eval.types import Record, TokenTrace

if TYPE_CHECKING:
    import numpy as np

BLOCK = 256
"""Tokens whose logits are held at once: 150 MB for a vocabulary of 150,000."""

OPEN_THINK, CLOSE_THINK = "<think>", "</think>"


class HfScorer:
    """A loaded checkpoint that scores replies; ``device`` as torch names it (a GPU where there is one)."""

    workers = 1

    def __init__(self, path: str, *, temperature: float = 1.0, device: str | None = None) -> None:
        """OSError where the checkpoint cannot be had, ImportError without the [hf] extra, ValueError for a
        temperature that is not positive or a tokenizer without a chat template."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if not temperature > 0:
            raise ValueError(f"a temperature is positive, not {temperature}")
        self.temperature = temperature
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        if not self.tokenizer.chat_template:
            raise ValueError(f"{path} has no chat template: how a question was rendered is not known")
        dtype = torch.float32 if self.device == "cpu" else "auto"
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        self.model = model.to(self.device).eval()
        self._table: dict[str, int] | None = None
        self.context: int | None = getattr(self.model.config, "max_position_embeddings", None)

    def score(
        self, messages: Sequence[Mapping[str, str]], record: Record, tokens: tuple[str, ...] | None
    ) -> TokenTrace:
        """The exact trace of one reply, without its end token."""
        prompt = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        before = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if tokens is None:
            text = reply_text(record, prompt)
            ids, tokens = self._split(text)
        else:
            ids = self._ids(tokens)
        if not ids:
            raise CannotScore("the reply is empty")
        if self.context is not None and len(before) + len(ids) > self.context:
            raise CannotScore(f"longer than the scorer's context of {self.context} tokens")
        entropy, logprob, vocabulary = self._forward(before, ids)
        import numpy as np

        return TokenTrace(
            tokens=tokens,
            logprob=logprob,
            entropy_low=entropy,
            entropy_high=entropy,
            tail=np.zeros_like(entropy),
            top=vocabulary,
            estimator=EXACT,
            vocabulary=vocabulary,
        )

    def _forward(self, before: list[int], ids: list[int]) -> tuple[np.ndarray, np.ndarray, int]:
        """(entropy, log-prob), both (T,) float64 in nats, and the width of the distribution."""
        import numpy as np
        import torch

        # The logits that predict reply token t come from the token before it.
        fed = [*before, *ids[:-1]]
        first = len(before) - 1
        entropies, logprobs, vocabulary = [], [], 0
        cache = None
        with torch.inference_mode():
            for start in range(0, len(fed), BLOCK):
                block = torch.tensor([fed[start : start + BLOCK]], device=self.device)
                out = self.model(input_ids=block, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                skipped = max(first - start, 0)
                if skipped >= block.shape[1]:
                    continue
                logits = out.logits[0, skipped:].float() / self.temperature
                vocabulary = logits.shape[-1]
                logp = torch.log_softmax(logits, dim=-1)
                at = start + skipped - first
                chosen = torch.tensor(ids[at : at + len(logits)], device=self.device)
                logprobs.append(logp.gather(1, chosen[:, None])[:, 0].double().cpu().numpy())
                # Masked logits are -inf and add nothing.
                terms = torch.where(logp.isinf(), torch.zeros_like(logp), logp.exp() * logp)
                entropies.append(-terms.sum(dim=-1).double().cpu().numpy())
        return np.concatenate(entropies), np.concatenate(logprobs), vocabulary

    def _split(self, text: str) -> tuple[list[int], tuple[str, ...]]:
        """Ids of a text and the texts of its tokens; a character of several tokens stands at the last of them."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = encoded["offset_mapping"]
        texts = []
        for i, (start, stop) in enumerate(spans):
            shared = i + 1 < len(spans) and spans[i + 1] == (start, stop)
            texts.append("" if shared else text[start:stop])
        return list(encoded["input_ids"]), tuple(texts)

    def _ids(self, tokens: tuple[str, ...]) -> list[int]:
        """Ids of recorded tokens: as the tokenizer splits the whole text where that gives the same tokens, else one by
        one, since a model may sample another split than its tokenizer's."""
        ids, texts = self._split("".join(tokens))
        if texts == tokens:
            return ids
        found: list[int] = []
        pieces = 0
        for token in tokens:
            if not token:  # a piece of a character that the next tokens complete
                pieces += 1
                continue
            own = self.tokenizer(token, add_special_tokens=False)["input_ids"] if pieces else [self._id(token)]
            if len(own) != pieces + 1:
                raise CannotScore(OTHER_TOKENS)
            found += own
            pieces = 0
        if pieces:
            raise CannotScore("the reply ends in the middle of a character")
        return found

    def _id(self, text: str) -> int:
        if self._table is None:
            self._table = token_table(self.tokenizer)
        found = self._table.get(text)
        if found is None:
            raise CannotScore(OTHER_TOKENS)
        return found


OTHER_TOKENS = "the scorer's tokenizer does not know the tokens of the reply"


def token_table(tokenizer: Any) -> dict[str, int]:
    """Text of every token of a vocabulary, as it stands inside a text, to its id. Where several tokens have one text,
    the one that the tokenizer itself would use, else the first."""
    # Behind another token, or some tokenizers leave out the space that a word begins with.
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"][-1]
    lead = len(tokenizer.decode([anchor]))
    table: dict[str, int] = {}
    shared: set[str] = set()
    for number in range(len(tokenizer)):
        text = tokenizer.decode([anchor, number])[lead:]
        if text in table:
            shared.add(text)
        else:
            table[text] = number
    for text in shared:
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(own) == 1:
            table[text] = own[0]
    return table


def reply_text(record: Record, prompt: str) -> str:
    """A reply's text as the model wrote it, where its tokens are not recorded: reasoning goes back into think tags,
    the opening one unless the rendered question ends with it."""
    if not record.reasoning or OPEN_THINK in record.reasoning:
        return whole_text(record, None)
    opening = "" if prompt.rstrip().endswith(OPEN_THINK) else f"{OPEN_THINK}\n"
    return f"{opening}{record.reasoning.strip()}\n{CLOSE_THINK}\n\n{(record.text or '').strip()}"
