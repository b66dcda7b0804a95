"""Every server's way of saying no, and what it means for the request and for the run."""

from __future__ import annotations

import email.utils
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_eval.inference.failures import MESSAGE_LENGTH, Fault, classify
from ares_eval.inference.logprobs import MissingLogprobs
from ares_eval.inference.transport import HttpAnswer, TransportError
from ares_eval.inference.wire import EmptyReply, Malformed, ServerSaidError

NOW = 1_800_000_000.0


def answered(status: int, body: object = b"", headers: dict[str, str] | None = None, **more) -> Fault:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(HttpAnswer(status, headers or {}, data), now=NOW, **more)


def openai(message: str, kind: str = "invalid_request_error", param: str | None = None, code: object = None) -> dict:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def lmdeploy(message: str, code: int) -> dict:
    return {"message": message, "type": "invalid_request_error", "code": code, "param": None, "object": "error"}


@pytest.mark.parametrize(
    ("status", "cause"),
    [(408, "timeout"), (409, "server"), (429, "rate_limit"), (500, "server"), (502, "server"), (503, "server"),
     (504, "timeout"), (529, "server")],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", openai("later"), lmdeploy("later", 1), b"<html><title>Busy</title></html>"])
def test_passing_faults_are_retried(status, cause, body):
    fault = answered(status, body)
    assert (fault.cause, fault.retry, fault.counts, fault.fatal) == (cause, True, True, False)
    assert fault.status == status


def test_a_request_above_the_rate_limit_as_such_is_not_retried():
    fault = answered(429, openai("Request too large for m on tokens per min (TPM): Limit 30000, Requested 50000."))
    assert (fault.cause, fault.retry, fault.fatal) == ("context", False, False)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415, 422, 302, 501])
@pytest.mark.parametrize("body", [b"", openai("no"), lmdeploy("no", 1), b"\xff<h1>No</h1>", [], {"detail": "no"}])
def test_permanent_faults_are_not(status, body):
    fault = answered(status, body)
    assert fault.cause == "refused"
    assert not fault.retry
    assert fault.fatal == (status in (401, 403, 404, 405, 302))


@pytest.mark.parametrize(
    ("problem", "cause", "retry"),
    [
        (TransportError("connect", "cannot connect"), "network", True),
        (TransportError("read", "cut"), "network", True),
        (TransportError("timeout", "late"), "timeout", True),
        (Malformed("x"), "malformed", True),
        (EmptyReply("x"), "empty", True),
        (MissingLogprobs("x"), "no_logprobs", False),
        (ServerSaidError("x", b'{"error": {"message": "overloaded"}}'), "server", True),
        (ServerSaidError("x", b'{"error": {"message": "slow down"}}', 429), "rate_limit", True),
        (ServerSaidError("x", b'{"error": {"message": "f", "code": "content_filter"}}', 400), "content_filter", False),
    ],
)
def test_exceptions(problem, cause, retry):
    fault = classify(problem)
    assert (fault.cause, fault.retry, fault.fatal) == (cause, retry, False)


def test_other_exceptions_are_not_swallowed():
    with pytest.raises(TypeError):
        classify(ZeroDivisionError())


# ---------------------------------------------------------------- when to come back


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-3"}, 0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": email.utils.formatdate(NOW + 30, usegmt=True)}, 30),
        ({"retry-after": email.utils.formatdate(NOW - 30, usegmt=True)}, 0),
        ({"retry-after": email.utils.formatdate(5000, usegmt=True), "date": email.utils.formatdate(4990)}, 10),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(status, headers, seconds):
    fault = answered(status, headers=headers)
    assert fault.retry_after == pytest.approx(seconds)
    assert fault.retry
    assert not fault.counts


@pytest.mark.parametrize("header", ["soon", "nan", "inf", "", "Wed, 99 Foo 2026"])
def test_senseless_retry_after_is_none(header):
    fault = answered(429, headers={"retry-after": header})
    assert fault.retry_after is None
    assert fault.counts


def test_retry_after_counts_for_429_and_503_only():
    assert answered(500, headers={"retry-after": "5"}).retry_after is None


@pytest.mark.parametrize(
    ("message", "seconds"),
    [("Rate limit reached for m. Please try again in 1.2s. Visit", 1.2), ("Please try again in 20ms.", 0.02),
     ("Please retry after 5 seconds.", 5.0)],
)  # fmt: skip
def test_retry_after_in_the_words(message, seconds):
    assert answered(429, openai(message)).retry_after == pytest.approx(seconds)


# ---------------------------------------------------------------- what stops a run


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, openai("You exceeded your current quota", "insufficient_quota", code="insufficient_quota")),
        (402, openai("Insufficient Balance")),
        (401, openai("Incorrect API key provided", code="invalid_api_key")),
        (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}]),
        (403, lmdeploy("forbidden", 403)),
        (404, openai("The model `m` does not exist.", "NotFoundError", code=404)),
        (400, openai("The model `m` does not exist", code="model_not_found")),
        (400, lmdeploy("The model 'm' does not exist.", 400)),
        (404, b"<html><head><title>404 Not Found</title></head><body>nginx</body></html>"),
    ],
)
def test_fatal(status, body):
    fault = answered(status, body)
    assert (fault.cause, fault.fatal, fault.retry) == ("refused", True, False)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"code": "content_filter", "message": "The response was filtered", "innererror": {}}}),
        (400, openai("Your request was rejected", code="content_policy_violation")),
        (403, {"error": {"code": 403, "message": "m requires moderation and your input was flagged"}}),
    ],
)
def test_content_filter_ends_one_request(status, body):
    fault = answered(status, body)
    assert (fault.cause, fault.fatal, fault.retry) == ("content_filter", False, False)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
        (400, "/models/m is not a multimodal model"),
        (400, "Invalid content type. image_url is only supported by certain models."),
        (400, "At most 4 image(s) may be provided in one prompt."),
        (404, "No endpoints found that support image input"),
    ],
)
def test_pictures_not_taken(status, message):
    fault = answered(status, openai(message))
    assert (fault.cause, fault.retry, fault.fatal) == ("unsupported_input", False, False)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "cannot identify image file <_io.BytesIO object at 0x7f>"),
        (400, "absolute aspect ratio must be smaller than 200, got 750.0"),
        (500, "Cannot connect to host 127.0.0.1:9 ssl:default [Connect call failed]"),
    ],
)
def test_broken_pictures(status, message):
    fault = answered(status, openai(message))
    assert (fault.cause, fault.retry, fault.fatal) == ("picture", False, False)


def test_picture_refusals_that_name_a_parameter():
    fault = answered(400, openai("This model does not support image inputs", param="messages"))
    assert (fault.cause, fault.parameter) == ("unsupported_input", None)
    fault = answered(400, openai("You uploaded an unsupported image.", code="invalid_image_format"))
    assert fault.cause == "picture"


def test_a_proxy_that_cannot_reach_its_server_is_retried():
    assert answered(500, openai("litellm.InternalServerError: Cannot connect to host backend:8000")).retry


# ---------------------------------------------------------------- log-probs


@pytest.mark.parametrize(
    "body",
    [
        openai("'logprobs' is not supported with this model", code="unsupported_parameter", param="logprobs"),
        openai("Requested sample logprobs of 25, which is greater than max allowed: 20", "BadRequestError", code=400),
        lmdeploy("Not enabled logprobs_mode in engine configuration", 400),
    ],
)
def test_refused_logprobs_stop_the_run(body):
    fault = answered(400, body)
    assert (fault.cause, fault.fatal, fault.retry) == ("no_logprobs", True, False)


# ---------------------------------------------------------------- messages


def test_the_servers_own_words():
    assert answered(400, openai("bad\n request")).message == "bad request"
    assert answered(400, lmdeploy("flat", 400)).message == "flat"
    assert answered(400, {"error": "just words"}).message == "just words"
    assert answered(502, b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>").message == (
        "HTTP 502 Bad Gateway: 502 Bad Gateway"
    )
    assert answered(500).message == "HTTP 500 Internal Server Error"
    assert answered(599).message == "HTTP 599"
    assert answered(422, {"detail": [{"loc": ["body", "n"], "msg": "must be int"}]}).message == (
        '[{"loc":["body","n"],"msg":"must be int"}]'
    )
    assert "https://x/v1" in answered(308, headers={"location": "https://x/v1"}).message


@pytest.mark.parametrize("body", [openai("key s3cr3t-token-1 and sk-proj-abcdef123456789 no", param="x")])
def test_no_secret_in_a_message(body):
    message = answered(401, body, secrets=["s3cr3t-token-1"]).message
    assert message == "key [key] and [key] no"
    assert "hunter2" not in answered(401, b"Authorization: Bearer hunter2").message


@given(st.integers(300, 599), st.binary(max_size=300))
def test_any_answer_is_classified(status, body):
    fault = answered(status, body)
    assert fault.message
    assert len(fault.message) <= MESSAGE_LENGTH
    assert fault.message.isprintable()


def test_messages_are_bounded():
    assert len(answered(400, openai("x" * 10_000_000)).message) == MESSAGE_LENGTH
