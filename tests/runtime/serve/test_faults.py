"""What clients, processes and operators can do to the service. Processes are stopped to hold a request where it is, so
that nothing here depends on how fast the machine is."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from benchmarks.serve_load import mutated
from PIL import Image

from cisi_runtime.backends.registry import SHIPPED_GRAPH, BackendOptions
from cisi_runtime.batch.photograph import EncodedPicture, PhotographOptions
from cisi_runtime.cli import serve as command
from cisi_runtime.serve.network_info import NetworkOptions
from cisi_runtime.serve.photograph_process import InpaintTask
from cisi_runtime.serve.workforce import Workforce
from tests.conftest import RunMain
from tests.runtime.serve.test_service import PNG, encoded, mask_png
from tests.support.service import Service, running, stopped, wait_until
from tests.support.shared import TIMEOUT_S

FORM = {"image": PNG, "mask": mask_png()}
SHORT = {"header_s": 0.5, "chunk_s": 0.5, "body_s": 2.0}


@pytest.fixture(scope="module")
def hasty(tiny_graph: Path) -> Iterator[Service]:
    """A service that waits for nobody; who asks it for work may have to ask again."""
    with running("--model", tiny_graph, "--workers", 1, limits=SHORT) as service:
        yield service


@pytest.fixture(scope="module")
def one_worker(tiny_graph: Path) -> Iterator[Service]:
    limits = {"deadline_s": 600.0, "queue_megapixels": 2.0}
    with running("--model", tiny_graph, "--workers", 1, "--max-megapixels", 1, limits=limits) as service:
        yield service


def ask(service: Service) -> httpx.Response:
    return httpx.post(f"{service.url}/inpaint", files=FORM, timeout=TIMEOUT_S)


def test_a_full_queue_says_when_to_come_back(one_worker: Service) -> None:
    with ThreadPoolExecutor(2) as pool:
        with stopped(*one_worker.children("photographs")):
            waiting = [pool.submit(ask, one_worker) for _ in range(2)]
            wait_until(lambda: one_worker.metric("cisi_queue_requests") == 2)
            refused = ask(one_worker)
            assert (refused.status_code, refused.json()["reason"]) == (429, "queue-full")
            assert int(refused.headers["retry-after"]) >= 1
            assert "2 requests with 2 megapixels are waiting" in refused.json()["detail"]
            assert one_worker.client.get("/healthz").status_code == 200
        assert [job.result().status_code for job in waiting] == [200, 200]
    assert ask(one_worker).status_code == 200


def test_work_of_clients_that_went_away_is_dropped(one_worker: Service) -> None:
    before = one_worker.metric("cisi_batches_total")
    gone = len([line for line in list(one_worker.log) if line.get("reason") == "client-gone"])
    with stopped(*one_worker.children("photographs")):
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{one_worker.url}/inpaint", files=FORM, timeout=httpx.Timeout(None, read=0.3))
        wait_until(lambda: one_worker.metric("cisi_queue_requests") == 0)
    # One was with the worker, which drops it before the network; the other never left the queue.
    wait_until(lambda: ask(one_worker).status_code == 200)
    assert one_worker.metric("cisi_batches_total") == before + 1
    assert [line["status"] for line in one_worker.said("reason", "client-gone", gone + 2)][-2:] == [499, 499]


def test_slow_clients_are_cut_off_and_hold_nobody_up(hasty: Service) -> None:
    head = b"POST /inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    half_a_body = head + b"Content-Length: 1000\r\n\r\n--x\r\n"
    with contextlib.ExitStack() as stack:

        def sent(data: bytes) -> socket.socket:
            connection = stack.enter_context(hasty.connect())
            with contextlib.suppress(ConnectionError):  # cut off already, where this process had to wait
                connection.sendall(data)
            return connection

        cut_off = [sent(b"") for _ in range(20)] + [sent(head) for _ in range(20)]
        bodies = [sent(half_a_body) for _ in range(20)]
        wait_until(lambda: ask(hasty).status_code == 200)
        assert {received(connection) for connection in cut_off} == {b""}
        for connection in bodies:
            answer = received(connection)
            # The head of one has to arrive in half a second, and this process may have to wait for longer.
            deadline = time.monotonic() + TIMEOUT_S
            while not answer and time.monotonic() < deadline:
                answer = received(sent(half_a_body))
            assert answer.startswith(b"HTTP/1.1 408 ")


def received(connection: socket.socket) -> bytes:
    """The first bytes of an answer; none where the connection is cut off."""
    try:
        return connection.recv(100)
    except ConnectionResetError:
        return b""


def test_a_body_that_drips_for_ever_is_cut_off(hasty: Service) -> None:
    connection = hasty.connect()
    head = "POST /inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    connection.sendall(f"{head}Content-Length: 100000\r\n\r\n--x\r\n".encode())
    connection.settimeout(0.2)
    answer = b""
    for _ in range(TIMEOUT_S * 5):
        try:
            answer = connection.recv(100)
            break
        except TimeoutError:
            connection.sendall(b"-")
    connection.close()
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_killed_worker_fails_its_own_request_alone(tiny_graph: Path) -> None:
    with running("--model", tiny_graph, "--workers", 2) as service, ThreadPoolExecutor(2) as pool:
        first, second = service.children("photographs")
        with stopped(first, second):
            waiting = [pool.submit(ask, service) for _ in range(2)]
            wait_until(lambda: service.metric("cisi_queue_requests") == 2)
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: any(job.done() for job in waiting))
            (failed,) = [job for job in waiting if job.done()]
            answer = failed.result()
            assert (answer.status_code, answer.json()["reason"]) == (502, "worker-died")
            assert "perhaps for want of memory" in answer.json()["detail"]
        assert sorted(job.result().status_code for job in waiting) == [200, 502]
        wait_until(lambda: service.metric("cisi_process_deaths_total") == 1)
        wait_until(lambda: service.metric("cisi_workers") == 2)
        # A death between two requests is noticed before a request meets it.
        for number in service.children("photographs"):
            os.kill(number, signal.SIGKILL)
        wait_until(lambda: service.metric("cisi_process_deaths_total") == 3)
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        assert [ask(service).status_code for _ in range(3)] == [200] * 3


def test_a_killed_network_is_replaced_by_the_same(tiny_graph: Path, tmp_path: Path) -> None:
    graph = tmp_path / "tiny.onnx"
    graph.write_bytes(tiny_graph.read_bytes())
    with running("--model", graph, "--workers", 1) as service, ThreadPoolExecutor(1) as pool:
        before = ask(service).content
        graph.write_bytes(SHIPPED_GRAPH.read_bytes())
        (network,) = service.children("network")
        with stopped(network):
            waiting = pool.submit(ask, service)
            wait_until(lambda: service.metric("cisi_queue_requests") == 1)
            os.kill(network, signal.SIGKILL)
        assert waiting.result().status_code in (200, 502)
        wait_until(lambda: any(line["message"] == "process ended" for line in service.log))
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        assert ask(service).content == before


def test_a_network_that_hangs_is_replaced(tiny_graph: Path) -> None:
    """Stopped, it neither answers nor dies; every request would end at its deadline for ever."""
    with running("--model", tiny_graph, "--workers", 1, "--deadline", 1) as service:
        answers: list[httpx.Response] = []
        wait_until(lambda: (answers.append(ask(service)) or answers[-1]).status_code == 200)  # type: ignore[func-returns-value]
        before = answers[-1].content
        with stopped(*service.children("network")):
            wait_until(lambda: ask(service).json()["reason"] == "deadline")
            wait_until(lambda: any(line.get("role") == "network" for line in list(service.log)))
        wait_until(lambda: ask(service).content == before)


def test_a_deadline_ends_a_request_and_a_worker_that_hangs(tiny_graph: Path) -> None:
    with running("--model", tiny_graph, "--workers", 1, "--deadline", 0.5) as service:
        (worker,) = service.children("photographs")
        with stopped(worker):
            answer = ask(service)
            assert (answer.status_code, answer.json()["reason"]) == (504, "deadline")
            wait_until(lambda: service.metric("cisi_process_deaths_total") == 1)
        wait_until(lambda: service.children("photographs") not in ([], [worker]))
        wait_until(lambda: ask(service).status_code == 200)


@pytest.mark.parametrize("grace", [600, 0.2])
def test_sigterm_finishes_what_was_accepted(tiny_graph: Path, grace: float) -> None:
    with running("--model", tiny_graph, "--workers", 1, "--grace", grace) as service, ThreadPoolExecutor(1) as pool:
        with stopped(*service.children("photographs")):
            waiting = pool.submit(ask, service)
            wait_until(lambda: service.metric("cisi_queue_requests") == 1)
            service.process.send_signal(signal.SIGTERM)
            if grace > 1:
                # Who asks is told first; requests that come meanwhile are still taken for a moment, then refused.
                wait_until(lambda: service.client.get("/readyz").json()["status"] == "draining")
                assert service.client.get("/readyz").status_code == 503
                wait_until(lambda: ask_quickly(service) == "draining")
            else:
                service.logged("given up")
                service.process.wait(TIMEOUT_S)
        if grace > 1:
            assert waiting.result().status_code == 200
        assert service.process.wait(TIMEOUT_S) == 0
        if grace < 1:
            answer = waiting.result()
            assert (answer.status_code, answer.json()["reason"]) == (503, "draining")
            assert [line for line in service.log if line["level"] == "not JSON"] == []


def ask_quickly(service: Service) -> str:
    """Why a request was refused, or nothing where it was let in."""
    try:
        answer = httpx.post(f"{service.url}/inpaint", files=FORM, timeout=httpx.Timeout(None, read=0.3))
    except httpx.ReadTimeout:
        return ""
    return str(answer.json()["reason"])


def test_a_second_signal_ends_at_once(tiny_graph: Path) -> None:
    with running("--model", tiny_graph, "--workers", 1, "--grace", 600) as service, ThreadPoolExecutor(1) as pool:
        children = [*service.children("photographs"), *service.children("network")]
        with stopped(*service.children("photographs")):
            waiting = pool.submit(ask, service)
            wait_until(lambda: service.metric("cisi_queue_requests") == 1)
            service.process.send_signal(signal.SIGINT)
            service.logged("draining")
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(TIMEOUT_S) == 0
        assert waiting.exception() is not None or waiting.result().status_code != 200
        wait_until(lambda: not any(is_running(number) for number in children))


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_children_end_with_a_service_that_is_killed(tiny_graph: Path) -> None:
    with running("--model", tiny_graph, "--workers", 2) as service:
        children = [*service.children("photographs"), *service.children("network")]
        assert len(children) == 3
        service.process.kill()
        wait_until(lambda: not any(is_running(number) for number in children))


def test_a_token_is_asked_for(tiny_graph: Path, tmp_path: Path) -> None:
    token = "sesame-open-0123456789"
    (tmp_path / "token").write_text(f"{token}\n")
    with running("--model", tiny_graph, "--workers", 1, "--token-file", tmp_path / "token") as service:
        for given in (None, "Bearer", "Bearer sesame", f"Basic {token}", f"Bearer {token}x", "Bearer \xe9"):
            headers = {} if given is None else {"Authorization": given.encode("latin-1")}
            answer = httpx.post(f"{service.url}/inpaint", files=FORM, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (401, "no-token"), given
            assert answer.headers["www-authenticate"] == "Bearer"
        right = {"Authorization": f"Bearer {token}"}
        assert httpx.post(f"{service.url}/inpaint", files=FORM, headers=right, timeout=TIMEOUT_S).status_code == 200
        for path, status in (("/", 200), ("/readyz", 200), ("/limits", 200), ("/metrics", 401), ("/v2", 401)):
            assert httpx.get(service.url + path).status_code == status, path
        assert httpx.get(f"{service.url}/limits").json()["needs_token"] is True
        assert token not in str(service.log)


def test_a_start_that_cannot_be(tiny_graph: Path, tmp_path: Path, run_main: RunMain) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, error = run_main(command.main, "--model", tiny_graph, "--port", port)
        assert (status, error) == (
            1,
            f"cisi: error: --port {port}: 127.0.0.1: Address already in use\n".replace("cisi:", "cisi-serve:"),
        )
    for arguments, expected, words in (
        (("--host", "0.0.0.0"), 2, "expected --token-file too, or --insecure"),
        (("--host", "no.such.host.invalid"), 2, "--insecure"),
        (("--max-megapixels", 200), 2, "--queue-megapixels: expected at least --max-megapixels"),
        (("--token-file", tmp_path / "none"), 1, "No such file"),
        (("--deadline", 0), 2, "--deadline"),
        (("--max-megapixels", "nan"), 2, "'--max-megapixels': nan is not a finite number"),
        (("--static", tmp_path / "page", "--workers", 2), 2, "--static goes with --model alone"),
    ):
        status, _, error = run_main(command.main, *arguments)
        assert status == expected
        assert words in error
    (tmp_path / "short").write_text("abc")
    assert "expected one word of 16 characters" in run_main(command.main, "--token-file", tmp_path / "short")[2]
    (tmp_path / "graph.onnx").write_bytes(b"no graph")
    for model, words in ((tmp_path / "graph.onnx", "is not an ONNX file"), (tmp_path / "none.onnx", "no such file")):
        program = [sys.executable, "-c", "import cisi_runtime.cli.serve as m; m.main()", "--port", "0"]
        result = subprocess.run(
            [*program, "--model", str(model)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert result.returncode == 1
        assert words in result.stderr.splitlines()[-1]
        assert result.stderr.splitlines()[-1].startswith("cisi-serve: error: ")


def test_a_network_that_is_not_the_trained_one_is_not_served(tiny_graph: Path, tmp_path: Path) -> None:
    import numpy as np

    graph = tiny_graph.read_bytes()
    wrong = graph.replace(np.float32(1e-5).tobytes(), np.float32(1e-2).tobytes())
    assert wrong != graph
    (tmp_path / "tiny.onnx").write_bytes(wrong)
    (tmp_path / "tiny.golden.npz").write_bytes(tiny_graph.with_name("tiny.golden.npz").read_bytes())
    program = [sys.executable, "-c", "import cisi_runtime.cli.serve as m; m.main()", "--port", "0"]
    result = subprocess.run(
        [*program, "--model", str(tmp_path / "tiny.onnx")], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert result.returncode == 1
    assert "comparisons failed" in result.stderr.splitlines()[-1]


def test_a_second_head_and_a_body_that_nobody_reads_are_cut_off(hasty: Service) -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    for rest in (b"\r\nGET /hea", b"Content-Length: 100\r\n\r\nabc"):
        with hasty.connect() as connection:
            connection.sendall(get + rest)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200 ")


def large_form() -> dict[str, bytes]:
    """A photograph of 3 megapixels, which fills the buffers between service and client as BMP, and its mask."""
    image = Image.effect_noise((2000, 1500), 60).convert("RGB")
    hole = Image.new("L", image.size)
    hole.paste(255, (900, 700, 960, 760))
    return {"image": encoded(image, "BMP"), "mask": encoded(hole, "PNG")}


def ask_and_do_not_read(service: Service) -> socket.socket:
    request = httpx.Request("POST", f"{service.url}/inpaint", files=large_form(), data={"detail": "false"})
    body = request.read()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(TIMEOUT_S)
    connection.connect(("127.0.0.1", service.port))
    head = f"POST /inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Type: {request.headers['content-type']}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_clients_that_do_not_take_their_answers_are_cut_off(tiny_graph: Path) -> None:
    with running("--model", tiny_graph, "--workers", 1, limits={"send_s": 0.5}) as service:
        with ask_and_do_not_read(service):
            assert service.said("reason", "client-too-slow")[0]["status"] == 200
            wait_until(lambda: service.metric("cisi_outgoing_bytes") == 0)
        assert ask(service).status_code == 200


def test_an_answer_on_its_way_is_not_cut_off_by_sigterm(tiny_graph: Path) -> None:
    with running("--model", tiny_graph, "--workers", 1, "--grace", 600) as service:
        with ask_and_do_not_read(service) as connection:
            wait_until(lambda: service.metric("cisi_outgoing_bytes") > 0)
            service.process.send_signal(signal.SIGTERM)
            assert service.logged("draining")["requests"] == 1
            answer = b""
            while piece := connection.recv(1 << 20):
                answer += piece
                if len(answer) > 9_000_000:
                    break
        assert len(answer) > 9_000_000
        assert service.process.wait(TIMEOUT_S) == 0


def test_a_worker_in_which_a_call_fails_is_replaced(tiny_graph: Path) -> None:
    """Whatever kept a task from its worker, the worker is not lost."""

    async def fail_once() -> list[str]:
        force = Workforce(NetworkOptions(tiny_graph, BackendOptions(threads=1)), 1, 60.0)
        await force.start()
        image = EncodedPicture(PNG, "image")
        task = InpaintTask(image, EncodedPicture(mask_png(), "mask"), PhotographOptions())
        outcomes = []
        for broken in (True, False):
            # A lock cannot be sent to another process.
            sent = dataclasses.replace(task, image=threading.Lock()) if broken else task  # type: ignore[arg-type]
            try:
                outcomes.append((await force.inpaint(sent, time.monotonic() + TIMEOUT_S)).format)
            except TypeError:
                outcomes.append("TypeError")
        await force.close()
        return outcomes

    assert asyncio.run(fail_once()) == ["TypeError", "PNG"]


def faults_in(service: Service) -> list[dict[str, object]]:
    return [line for line in list(service.log) if line["level"] in ("error", "not JSON")]


def test_malformed_requests_neither_crash_nor_leak(one_worker: Service) -> None:
    form = httpx.Request("POST", f"{one_worker.url}/inpaint", files=FORM)
    body = form.read()
    head = f"POST /inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Type: {form.headers['content-type']}\r\n"
    whole = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    rng = random.Random(5)
    statuses = []
    deaths = one_worker.metric("cisi_process_deaths_total")
    faults = len(faults_in(one_worker))
    for _ in range(150):
        with one_worker.connect() as connection:
            data = mutated(whole, rng)
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(100)
            except OSError:  # cut off while it was being sent
                answer = b""
            statuses.append(answer[9:12])
    assert b"500" not in statuses
    assert b"502" not in statuses
    wait_until(lambda: one_worker.metric("cisi_queue_requests") == 0)
    assert one_worker.metric("cisi_process_deaths_total") == deaths
    assert len(faults_in(one_worker)) == faults
    assert ask(one_worker).status_code == 200
