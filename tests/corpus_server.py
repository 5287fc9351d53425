"""A server that writes a corpus as OpenAI-compatible ones do: invented text, or a model's, with faults on demand."""

import json
import zlib
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from string import ascii_letters
from threading import Lock, Thread
from typing import Any, Self

import torch

Fault = Callable[[int, dict[str, Any]], Any]  # (how many requests before, the body): None, or what to answer instead


class CorpusServer:
    """`chat_only`: no token ids as a prompt. `fault`: a status, the raw bytes to send, "hang up", or None."""

    def __init__(
        self, tokenizer: Any, model: Any = None, *, chat_only: bool = False, fault: Fault | None = None, port: int = 0
    ) -> None:
        self.model, self.tokenizer, self.chat_only, self.fault = model, tokenizer, chat_only, fault
        self.asked, self.lock = list[dict[str, Any]](), Lock()
        self.http = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"server_": self}))
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.thread = Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def write(self, prompt: Sequence[int], limit: int, temperature: float, seed: int) -> tuple[list[int], bool]:
        """The continuation, and whether it ended. A function of its arguments, as far as `temperature` lets it be."""
        if self.model is not None:
            return self._greedy(prompt, limit), False
        coins = Random(f"{zlib.crc32(bytes(str(list(prompt)), 'ascii'))}:{seed if temperature else 0}")
        length = coins.randint(4, 2 * limit)
        text = "".join(coins.choice("abcdefgh .") for _ in range(length))
        return self.tokenizer.encode(text, add_special_tokens=False)[:limit], length < limit

    @torch.inference_mode()
    def _greedy(self, prompt: Sequence[int], limit: int) -> list[int]:
        """Printable text alone, so that it is valid UTF-8."""
        printable = torch.tensor(self.tokenizer.encode(ascii_letters, add_special_tokens=False))
        tokens = list(prompt)
        for _ in range(limit):
            logits = self.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            tokens.append(int(printable[logits[printable].argmax()]))
        return tokens[len(prompt) :]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: clients hang up when a test stops them."""


class _Handler(BaseHTTPRequestHandler):
    server_: CorpusServer

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": "bytes", "owned_by": "test"}]})

    def do_POST(self) -> None:
        server = self.server_
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            before = len(server.asked)
            server.asked.append(body)
            wrong = server.fault(before, body) if server.fault else None
            if wrong == "hang up":
                self.close_connection = True
                return
            if isinstance(wrong, int):
                self._send(wrong, {"error": {"message": "not now"}})
                return
            if wrong is not None:
                self._send(200, wrong)
                return
            self._send(*self._answer(body))

    def _answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        server = self.server_
        if "messages" in body:
            prompt = server.tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        elif server.chat_only:
            return 404, {"error": {"message": "Not Found"}}
        else:
            prompt = body["prompt"]
        tokens, ended = server.write(prompt, body["max_tokens"], body["temperature"], body["seed"])
        text = server.tokenizer.decode(tokens)
        choice = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(tokens) + ended}
        return 200, {"choices": [choice | {"finish_reason": "stop" if ended else "length"}], "usage": usage}

    def _send(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
