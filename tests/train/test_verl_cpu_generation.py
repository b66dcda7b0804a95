"""Answers of the CPU rollout engine: they depend on the request and the weights, not on what else is asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ares_train.verl_cpu.generation import Ask, Generator
from ares_train.verl_cpu.sampling import Settings
from ares_train.verl_cpu.streams import PARAMETER, Streams
from tests.models import tiny_text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from transformers import AutoModelForCausalLM

    folder = tiny_text.build(tmp_path_factory.mktemp("model"))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def generator(model):
    return Generator(model, ends=frozenset([model.config.eos_token_id]), pad=model.config.pad_token_id)


def asks(count: int, *, tokens: int = 12, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> list[Ask]:
    """Prompts of several lengths, each with a stream of its own that starts anew with every call."""
    rng = np.random.default_rng(7)
    prompts = [rng.integers(0, 300, size=int(rng.integers(2, 20))).tolist() for _ in range(count)]
    settings = Settings(temperature, top_k, top_p, tokens, True)
    streams = Streams(seed=3)
    return [Ask(prompt, settings, streams.open(0, prompt, (), {PARAMETER: "0"})) for prompt in prompts]


def test_answers_do_not_depend_on_the_batch_its_order_or_its_size(generator):
    together = generator.answer(asks(9), max_batch=9)
    alone = [generator.answer([ask], max_batch=1)[0] for ask in asks(9)]
    backwards = generator.answer(asks(9)[::-1], max_batch=4)[::-1]
    for one, other, third in zip(together, alone, backwards, strict=True):
        assert one.tokens == other.tokens == third.tokens
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
        assert one.entropies == pytest.approx(third.entropies, abs=1e-4)
    assert len({tuple(answer.tokens) for answer in together}) == 9


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.8)])
def test_log_probs_and_entropies_are_those_of_a_full_forward_pass(generator, model, top_k, top_p):
    for ask, answer in zip(
        asks(4, temperature=0.8, top_k=top_k, top_p=top_p),
        generator.answer(asks(4, temperature=0.8, top_k=top_k, top_p=top_p), max_batch=4),
        strict=True,
    ):
        with torch.no_grad():
            logits = model(torch.tensor([[*ask.prompt, *answer.tokens]])).logits[0].double() / 0.8
        for place, token in enumerate(answer.tokens):
            row = logits[len(ask.prompt) - 1 + place]
            whole = row.softmax(-1)
            assert answer.entropies[place] == pytest.approx(float(-(whole * whole.log()).sum()), abs=1e-4)
            kept = torch.ones_like(whole, dtype=torch.bool)
            if top_k:
                kept = row >= row.topk(top_k).values[-1]
            if top_p < 1:
                ranked = whole.sort(descending=True)
                kept = torch.zeros_like(kept).scatter(
                    0, ranked.indices, ranked.values.cumsum(0) - ranked.values < top_p
                )
            assert kept[token]
            assert answer.log_probs[place] == pytest.approx(float((whole[token] / whole[kept].sum()).log()), abs=1e-4)


def test_an_answer_ends_with_the_end_token_or_its_budget(model):
    plain = Generator(model, ends=frozenset(), pad=model.config.pad_token_id).answer(asks(6), max_batch=6)
    assert all(len(answer.tokens) == 12 and not answer.ended for answer in plain)
    end = plain[0].tokens[4]
    ended = Generator(model, ends=frozenset([end]), pad=model.config.pad_token_id).answer(asks(6), max_batch=6)
    for whole, answer in zip(plain, ended, strict=True):
        cut = whole.tokens[: whole.tokens.index(end) + 1] if end in whole.tokens else whole.tokens
        assert answer.tokens == cut
        assert answer.ended == (end in whole.tokens)


def test_zero_temperature_takes_the_most_probable_token_each_time(generator, model):
    for ask, answer in zip(asks(3, temperature=0.0), generator.answer(asks(3, temperature=0.0), 3), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*ask.prompt, *answer.tokens]])).logits[0]
        start = len(ask.prompt) - 1
        assert answer.tokens == logits[start : start + len(answer.tokens)].argmax(-1).tolist()


def numbers(generator: np.random.Generator) -> list[float]:
    return generator.random(4).tolist()


def test_a_stream_is_named_by_seed_version_prompt_settings_and_name():
    base = numbers(Streams(1).open(5, [1, 2], (), {PARAMETER: "0", "temperature": 1.0}))
    same = numbers(Streams(1, replica=3).open(5, [1, 2], (), {PARAMETER: "0", "temperature": 1.0, "max_tokens": 9}))
    assert same == base
    others = [
        Streams(2).open(5, [1, 2], (), {PARAMETER: "0", "temperature": 1.0}),
        Streams(1).open(6, [1, 2], (), {PARAMETER: "0", "temperature": 1.0}),
        Streams(1).open(5, [1, 2, 3], (), {PARAMETER: "0", "temperature": 1.0}),
        Streams(1).open(5, [1, 2], (b"picture",), {PARAMETER: "0", "temperature": 1.0}),
        Streams(1).open(5, [1, 2], (), {PARAMETER: "1", "temperature": 1.0}),
        Streams(1).open(5, [1, 2], (), {PARAMETER: "0", "temperature": 0.5}),
    ]
    seen = [numbers(other) for other in others]
    assert base not in seen
    assert len({tuple(each) for each in seen}) == len(seen)


def test_unnamed_requests_are_counted_and_get_the_streams_of_their_number():
    streams, named = Streams(1), Streams(1)
    for version in (0, 1, 0):
        for count in range(3):
            for prompt in ([1], [2]):
                counted = numbers(streams.open(version, prompt, (), {"temperature": 1.0}))
                assert counted == numbers(named.open(version, prompt, (), {"temperature": 1.0, PARAMETER: str(count)}))


def test_replicas_that_count_for_themselves_do_not_repeat_each_other():
    first, second = Streams(1, replica=0).open(0, [1], (), {}), Streams(1, replica=1).open(0, [1], (), {})
    assert numbers(first) != numbers(second)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """The tiny vision-language model with its processor, as verl's model configuration loads them on the CPU."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from ares_train.verl_cpu import pictures
    from tests.models import tiny_qwen_vl

    folder = tiny_qwen_vl.build(tmp_path_factory.mktemp("seeing"))
    pictures.processors()
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(str(folder))
    ends = frozenset([processor.tokenizer.eos_token_id])
    return Generator(model, ends=ends, pad=processor.tokenizer.pad_token_id, processor=processor)


def picture_asks(generator: Generator, count: int) -> list[Ask]:
    """Questions about pictures of several sizes, every third one without a picture."""
    from PIL import Image

    rng = np.random.default_rng(5)
    settings, streams, made = Settings(1.0, 0, 1.0, 6, True), Streams(seed=1), []
    for number in range(count):
        shown = (
            []
            if number % 3 == 2
            else [Image.fromarray(rng.integers(0, 255, (56 + 28 * number, 84, 3), dtype=np.uint8))]
        )
        content = [*({"type": "image"} for _ in shown), {"type": "text", "text": f"What is {number}?"}]
        text = generator.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        ids = generator.processor(text=[text], images=shown or None, return_tensors="pt")["input_ids"][0].tolist()
        made.append(Ask(ids, settings, streams.open(0, ids, (), {PARAMETER: "0"}), shown))
    return made


def test_pictures_are_seen_as_in_a_full_forward_pass_of_transformers(seeing):
    for ask, answer in zip(picture_asks(seeing, 4), seeing.answer(picture_asks(seeing, 4), max_batch=4), strict=True):
        ids = torch.tensor([[*ask.prompt, *answer.tokens]])
        vision = {}
        if ask.pictures:
            vision = dict(seeing.processor.image_processor(images=list(ask.pictures), return_tensors="pt"))
            vision["mm_token_type_ids"] = (ids == seeing.processor.image_token_id).long()
        seeing.model.model.rope_deltas = None
        with torch.no_grad():
            logits = seeing.model(input_ids=ids, attention_mask=torch.ones_like(ids), **vision).logits[0]
        wanted = logits[len(ask.prompt) - 1 : -1].double().log_softmax(-1)
        found = wanted.gather(-1, torch.tensor(answer.tokens).unsqueeze(-1)).squeeze(-1)
        assert answer.log_probs == pytest.approx(found.tolist(), abs=1e-4)


def test_another_picture_changes_the_answer(seeing):
    first, other = picture_asks(seeing, 2)[0], picture_asks(seeing, 2)[0]
    blank = [picture.point(lambda _: 0) for picture in other.pictures]
    one, two = seeing.answer([first, Ask(other.prompt, other.settings, other.stream, blank)], max_batch=2)
    assert one.entropies[0] != pytest.approx(two.entropies[0], abs=1e-5)


def test_a_picture_that_does_not_fit_its_place_in_the_prompt_is_refused(seeing):
    ask = picture_asks(seeing, 1)[0]
    cut = [token for token in ask.prompt if token != seeing.processor.image_token_id]
    with pytest.raises(ValueError, match=r"the prompt has 0 picture tokens, its 1 pictures need 6"):
        seeing.answer([Ask(cut, ask.settings, ask.stream, ask.pictures)], max_batch=1)


def test_a_picture_for_a_model_of_text_is_refused(generator, seeing):
    with pytest.raises(ValueError, match="without a picture processor"):
        generator.answer(picture_asks(seeing, 1), max_batch=1)
