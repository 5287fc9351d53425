"""A small server that speaks as SGLang 0.5.23 or vLLM 0.33.0 does, formats as in their sources: for `bench --endpoint`.

It writes the same text for the same prompt, a round at a time: with drafts of length K a round accepts as many as `TURNS`
says. Its counters rise as the engines' do: vLLM's with every round, SGLang's when a request is over.
"""

import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self

import pytest

TURNS = (2, 0, 3, 1)  # drafts accepted in a request's first round, second round, ...; the fifth is the first again
WORDS = "the keeper climbs\u2028the steps\x85 and lights\nthe lamp \U0001f4a1 again".split(
    " "
)  # line ends that are none of SSE's


class Fake:
    """`engine`: sglang or vllm. `drafts`: K, 0 for plain. Faults: see `_answer` and `_chat`."""

    def __init__(
        self,
        engine: str,
        drafts: int = 3,
        *,
        metrics: bool = True,
        details: bool = True,
        fault: str = "",
        round_s: float = 0.0,
        wrong: str = "",
    ) -> None:
        self.engine, self.drafts, self.metrics, self.details, self.fault = engine, drafts, metrics, details, fault
        self.round_s, self.wrong = round_s, wrong
        self.lock, self.counts, self.asked, self.most, self.now = Lock(), Counter[str](), list[dict[str, Any]](), 0, 0
        self.hung_up = 0

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"fake": self})
        self.http = _Quiet(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def count(self, **grown: int) -> None:
        with self.lock:
            self.counts.update(grown)

    def rounds(self, tokens: int) -> Iterator[tuple[int, int]]:
        """(accepted, emitted) of each round until `tokens` are written; the first token is prefill's."""
        left, turn = tokens - 1, 0
        while left > 0:
            accepted = min(TURNS[turn % len(TURNS)], self.drafts, left - 1)
            left -= accepted + 1
            turn += 1
            yield accepted, accepted + 1

    def prometheus(self) -> str:
        """As the client library writes it: a family's help and type, its samples, when each counter was made."""
        labels = (
            'engine="0",model_name="tiny, really"'
            if self.engine == "vllm"
            else 'model_name="tiny, really",moe_ep_rank="0"'
        )
        names = {
            "vllm": {
                "generated": "generation_tokens",
                "rounds": "spec_decode_num_drafts",
                "drafted": "spec_decode_num_draft_tokens",
                "accepted": "spec_decode_num_accepted_tokens",
            },
            "sglang": {"generated": "generation_tokens", "rounds": "spec_verify_calls", "requests": "num_requests"},
        }[self.engine]
        if not self.drafts:  # neither engine has the others then
            names = {key: name for key, name in names.items() if key in ("generated", "requests")}
        lines = [
            f"# HELP {self.engine}:other Not ours.\n# TYPE {self.engine}:other gauge\n{self.engine}:other{{{labels}}} 7.0"
        ]
        for key, name in names.items():
            family = f"{self.engine}:{name}_total"
            lines += [f"# HELP {family} Number.", f"# TYPE {family} counter"]
            if key == "generated" and self.engine == "sglang":
                lines += [f'{family}{{is_streaming="true",{labels}}} {float(self.counts[key])}']
                lines += [f'{family}{{is_streaming="false",{labels}}} 1000.0']
            else:
                lines += [f"{family}{{{labels}}} {float(self.counts[key])}"]
            lines += [
                f"# TYPE {self.engine}:{name}_created gauge",
                f"{self.engine}:{name}_created{{{labels}}} 1.79e+09",
            ]
        if self.engine == "vllm":
            family = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
            lines += [
                f'{family}{{{labels},position="{i}"}} {float(self.counts[f"position{i}"])}' for i in range(self.drafts)
            ]
        return "\n".join(lines) + "\n"


class _Quiet(ThreadingHTTPServer):
    """One that does not print a traceback when a client hangs up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    fake: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        fake = self.fake
        if fake.fault == "web page":
            return self._send(200, "<html>welcome</html>", "text/html")
        if fake.fault == "key" and self.headers.get("Authorization") != "Bearer secret":
            return self._send(401, json.dumps({"error": "Unauthorized"}))
        if self.path == "/v1/models":
            card = {"id": "tiny", "object": "model", "owned_by": fake.engine, "root": "tiny", "max_model_len": 2048}
            return self._send(200, json.dumps({"object": "list", "data": [card, card | {"id": "other"}]}))
        if self.path == "/metrics" and fake.metrics:
            return self._send(200, fake.prometheus(), "text/plain; version=0.0.4; charset=utf-8")
        if self.path == "/version" and fake.engine == "vllm":
            return self._send(200, json.dumps({"version": "0.33.0"}))
        if self.path == "/props" and fake.engine == "llamacpp":
            return self._send(200, json.dumps({"build_info": "b1", "total_slots": 2}))
        if self.path == "/server_info" and fake.engine == "sglang":
            told = {"version": "0.5.23", "dtype": "bfloat16", "internal_states": [{"avg_spec_accept_length": 9.9}]}
            if fake.drafts:
                told |= {"speculative_algorithm": "EAGLE3", "speculative_num_steps": fake.drafts,
                         "speculative_eagle_topk": 1, "speculative_num_draft_tokens": fake.drafts + 1}  # fmt: skip
            return self._send(200, json.dumps(told))
        return self._send(404, json.dumps({"detail": "Not Found"}))

    def do_POST(self) -> None:
        fake = self.fake
        length = int(self.headers["Content-Length"])
        sent = self.rfile.read(length)
        if len(sent) < length:
            return  # the client hung up while it asked, as it does when another of its requests has failed
        body = json.loads(sent)
        with fake.lock:
            fake.asked.append(body)
            fake.now += 1
            fake.most = max(fake.most, fake.now)
        try:
            self._chat(body, warm=len(fake.asked) == 1)
        except (BrokenPipeError, ConnectionResetError):
            fake.count()
            fake.hung_up += 1
        finally:
            with fake.lock:
                fake.now -= 1

    def _chat(self, body: dict[str, Any], *, warm: bool) -> None:
        fake, fault = self.fake, "" if warm else self.fake.fault
        if fault == "refused":
            message = "max_tokens is too large"
            whole = (
                {"error": {"message": message}} if fake.engine == "vllm" else {"object": "error", "message": message}
            )
            self._send(400, json.dumps(whole))
            return
        if fault == "silent":
            time.sleep(1.0)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._event(body, {"role": "assistant", "content": ""})
        tokens, written, histogram = body["max_tokens"], 0, [0] * (fake.drafts + 1)
        text = [fake.wrong or f"<{body['messages'][0]['content']}>", *WORDS * tokens][:tokens]
        for accepted, emitted in [(0, 1), *fake.rounds(tokens)]:
            time.sleep(fake.round_s)
            if written and fake.drafts:
                histogram[accepted] += 1
                if fake.engine == "vllm":
                    fake.count(
                        rounds=1, drafted=fake.drafts, accepted=accepted, **{f"position{i}": 1 for i in range(accepted)}
                    )
            if written and fault == "killed":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if written and fault in ("cut off", "error"):
                if fault == "error":
                    self._write(
                        "data: " + json.dumps({"error": {"message": "CUDA out of memory", "code": 500}}) + "\n\n"
                    )
                self._end()
                return
            self._event(body, {"content": " ".join(["", *text[written : written + emitted]])})
            written += emitted
            if fake.engine == "vllm":
                fake.count(generated=emitted)
        self._event(body, {}, finish="length")
        self._close(body, tokens, histogram)

    def _close(self, body: dict[str, Any], tokens: int, histogram: list[int]) -> None:
        """The last events: SGLang's account of the request if it was asked for, usage, [DONE]."""
        fake = self.fake
        rounds, correct = sum(histogram), sum(i * n for i, n in enumerate(histogram))
        if fake.engine == "sglang":
            fake.count(generated=tokens, requests=1, rounds=rounds if fake.drafts else 0)
            if body.get("return_spec_tokens_details") and fake.details and rounds:
                while histogram and not histogram[-1]:  # it grows as far as it has to
                    histogram.pop()
                told = {"spec_accept_length": tokens / rounds, "spec_num_correct_drafts": correct,
                        "spec_num_proposed_drafts": rounds * fake.drafts, "spec_verify_ct": rounds,
                        "spec_correct_drafts_histogram": histogram}  # fmt: skip
                self._data(body, {"choices": [], "sglext": {"spec_tokens_details": told}})
        if body.get("stream_options", {}).get("include_usage"):
            self._data(
                body,
                {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": tokens + 5}},
            )
        self._write("data: [DONE]\n\n")
        self._end()

    def _event(self, body: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> None:
        self._data(
            body, {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], "usage": None}
        )

    def _data(self, body: dict[str, Any], fields: dict[str, Any]) -> None:
        whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]} | fields
        self._write(": ping\n\n" + f"data: {json.dumps(whole, ensure_ascii=False)}\n\n")

    def _write(self, text: str) -> None:
        """One HTTP chunk in two halves, so that events arrive in pieces."""
        data = text.encode()
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _send(self, status: int, text: str, kind: str = "application/json") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
