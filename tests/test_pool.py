"""Several processes behind one port: real ones on loopback, killed, stopped and overloaded."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graphs
import grpc
import httpx
import orjson
import psutil
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from prometheus_client.parser import text_string_to_metric_families
from test_serving import Running, launch, ready, until

from boatyard import packages
from boatyard.serving.batching import Load
from boatyard.serving.metrics import Numbers
from boatyard.serving.pool import TICK
from boatyard.serving.usage import CORE, Used, full

SCHEMA = graphs.image_schema((6, 5))
OPEN: list[Any] = []  # clients and sockets that a test left
LONG = 120  # seconds for what takes a few on a machine that has nothing else to do
TOKEN = {"Authorization": "Bearer secret"}


@contextlib.contextmanager
def served(package: packages.Package, *options: str) -> Iterator[Running]:
    """Run a server to its clean end."""
    running = launch(package, "--access-log", "0", *options)  # nobody reads the log before the end
    try:
        yield ready(running)
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
        output, _ = running.process.communicate(timeout=30)
        assert running.process.returncode == 0 and "Traceback" not in output, output
    finally:
        running.process.kill()
        running.process.communicate()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Hang up after a test."""
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> packages.Package:
    return graphs.package(tmp_path_factory.mktemp("pool") / "package", SCHEMA)


@pytest.fixture(scope="module")
def pair(package: packages.Package) -> Iterator[Running]:
    with served(package, "--workers", "2") as running:
        yield running


def others(running: Running) -> list[psutil.Process]:
    return [each for each in psutil.Process(running.process.pid).children() if "serving.worker" in each.cmdline()[3]]


def clients(running: Running, count: int) -> list[httpx.Client]:
    """Open so many connections, each asked once, so that all of them are there at the same time."""
    found = [httpx.Client(base_url=running.url, timeout=30, headers=TOKEN) for _ in range(count)]
    OPEN.extend(found)
    for client in found:
        client.get("/v2/health/ready").raise_for_status()
    return found


def numbers(running: Running, client: Any = httpx) -> dict[str, float]:
    text = client.get(f"{running.url}/metrics", timeout=30).raise_for_status().text
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    found: dict[str, float] = {}
    for each in samples:
        if "bucket" not in each.name and each.labels.get("code", "200") == "200":
            found[each.name] = found.get(each.name, 0) + each.value
    return found


def body(package: packages.Package, rows: int = 1) -> bytes:
    instance = package.golden.inputs["image"][0].tolist()
    return orjson.dumps({"instances": [instance] * rows})


def test_connections_are_shared_and_every_process_answers_the_same_and_counts_for_all(
    pair: Running, package: packages.Package
) -> None:
    before = numbers(pair)
    found = clients(pair, 8)
    answers = {client.post("/v1/models/insects:predict", content=body(package)).content for client in found}
    assert len(answers) == 1
    (other,) = others(pair)
    there = [each.raddr.port for each in other.connections("tcp") if each.status == "ESTABLISHED"]
    assert 3 <= len(there) <= 5
    for client in found:  # some of them ask the other process
        after = numbers(pair, client)
        assert after["boatyard_requests_total"] - before.get("boatyard_requests_total", 0) == 8
        assert after["boatyard_rows_total"] - before["boatyard_rows_total"] == 8
        assert after["boatyard_processes"] == 2
    memory = [psutil.Process(pid).memory_info().rss for pid in (pair.process.pid, other.pid)]
    assert after["process_resident_memory_bytes"] == pytest.approx(sum(memory), rel=0.1)


def test_grpc_channels_are_shared_too(pair: Running, package: packages.Package) -> None:
    image = package.golden.inputs["image"][:1]
    request = pb.ModelInferRequest(model_name="insects", raw_input_contents=[image.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=image.shape)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(f"127.0.0.1:{pair.grpc}", options) for _ in range(4)]
    OPEN.extend(channels)
    found = {GRPCInferenceServiceStub(each).ModelInfer(request).raw_output_contents[1] for each in channels}
    assert len(found) == 1
    (other,) = others(pair)
    there = [each for each in other.connections("tcp") if each.laddr.port == pair.grpc]
    assert 1 <= len(there) <= 3


def test_what_one_process_loads_all_serve(tmp_path: Path, package: packages.Package, monkeypatch: Any) -> None:
    monkeypatch.setenv("BOATYARD_ADMIN_TOKEN", "secret")
    second = graphs.package(tmp_path / "other", graphs.numbers_schema())
    for name in ("second", "broken"):
        shutil.copytree(second.path, tmp_path / "store" / name)
    (tmp_path / "store" / "broken" / "model.onnx").write_bytes(b"other")
    with served(package, "--workers", "2", "--repository", str(tmp_path / "store")) as running:
        found = clients(running, 6)
        OPEN.append(grpc.insecure_channel(f"127.0.0.1:{running.grpc}"))
        stub = GRPCInferenceServiceStub(OPEN[-1])
        for turn, client in enumerate(found):
            status = client.post("/v2/repository/models/second/load").raise_for_status().json()
            assert status == {"name": "second", "version": second.digest, "load": True}
            assert {each.get("/v2/models/second/ready").status_code for each in found} == {200}
            assert client.post("/v2/repository/models/broken/load").status_code == 422
            assert client.post("/v2/repository/models/none/load").status_code == 404
            if turn % 2:
                request = pb.RepositoryModelUnloadRequest(model_name="second")
                stub.RepositoryModelUnload(request, metadata=[("authorization", "Bearer secret")])
            else:
                client.post("/v2/repository/models/second/unload").raise_for_status()
            assert {each.get("/v2/models/second/ready").status_code for each in found} == {404}
            assert client.post("/v2/repository/models/second/unload").status_code == 404
        closed = {each.post("/v2/repository/index", headers={"Authorization": "no"}).status_code for each in found}
        assert closed == {401}


def test_a_killed_process_costs_its_own_connections_and_is_replaced(package: packages.Package) -> None:
    with served(package, "--workers", "2") as running:
        for client in clients(running, 6):
            client.post("/v1/models/insects:predict", content=body(package)).raise_for_status()
        before = numbers(running)
        (other,) = others(running)
        other.kill()
        until(lambda: numbers(running)["boatyard_processes"] == 1)
        assert {client.get("/v2/health/ready").status_code for client in clients(running, 6)} == {200}
        after = numbers(running)
        assert after["boatyard_requests_total"] == before["boatyard_requests_total"] == 6
        assert after["boatyard_queue_requests"] == 0
        until(lambda: numbers(running)["boatyard_processes"] == 2)
        assert others(running)[0].pid != other.pid


@pytest.mark.alone
def test_a_process_that_hangs_gets_no_more_clients(package: packages.Package) -> None:
    with served(package, "--workers", "2") as running:
        (other,) = others(running)
        other.suspend()
        time.sleep(3)  # until it is noticed
        started = time.monotonic()
        found = clients(running, 6)
        assert numbers(running, found[0])["boatyard_processes"] == 2
        assert time.monotonic() - started < 3
        other.resume()
        until(lambda: len([each for each in clients(running, 4) if each]) == 4)


def test_a_signal_drains_all_processes(package: packages.Package) -> None:
    with served(package, "--workers", "2", "--drain", "2") as running:
        found = clients(running, 6)
        everyone = [running.process.pid, *(each.pid for each in others(running))]
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert {client.get("/v2/health/ready").status_code for client in found} == {503}
        assert {client.post("/v1/models/insects:predict", content=body(package)).status_code for client in found} == {
            200
        }
        assert running.process.wait(30) == 0
        assert not [pid for pid in everyone if psutil.pid_exists(pid) and pid != running.process.pid]


def test_a_request_at_work_is_answered_when_the_server_stops(package: packages.Package) -> None:
    """Bodies that are half sent when the signal comes are answered, in either process."""
    with served(package, "--workers", "2") as running:
        data = body(package)
        head = b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data)
        found = [socket.create_connection(("127.0.0.1", running.http), timeout=20) for _ in range(6)]
        OPEN.extend(found)
        for client in found:
            client.sendall(head + data[:20])
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        for client in found:
            client.sendall(data[20:])
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert running.process.wait(30) == 0


def test_without_the_first_process_the_others_end(package: packages.Package) -> None:
    running = ready(launch(package, "--workers", "2"))
    (other,) = others(running)
    running.process.kill()
    running.process.communicate()
    other.wait(10)


def test_a_second_signal_waits_for_nobody(package: packages.Package) -> None:
    with served(package, "--workers", "2", "--drain", "30") as running:
        clients(running, 4)
        (other,) = others(running)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
        assert not other.is_running()


def test_clients_that_keep_asking_are_told_that_the_server_leaves(package: packages.Package) -> None:
    running = ready(launch(package, "--access-log", "0", "--workers", "2"))
    data, cut, told = body(package), list[str](), list[int]()

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", running.http), timeout=60) as client:
            for count in range(1_000_000):
                client.sendall(posted(data))
                head = client.recv(1 << 16)
                if b"connection: close" in head:
                    told.append(count)
                    return
                if not head.startswith(b"HTTP/1.1 200"):
                    cut.append(repr(head))
                    return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    running.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(30)
    running.process.communicate(timeout=30)
    assert not cut and len(told) == 8 and min(told) > 0, (cut, told)


def test_a_server_that_is_told_to_stop_before_it_is_ready_stops(package: packages.Package) -> None:
    running = launch(package, "--workers", "2", "--drain", "60")
    first = psutil.Process(running.process.pid)
    until(lambda: bool(first.children()))
    (other,) = first.children()
    running.process.send_signal(signal.SIGTERM)
    output, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0 and "Traceback" not in output, output
    assert not other.is_running()


def posted(data: bytes) -> bytes:
    return b"POST /v1/models/insects:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)


def load(running: Running, data: bytes, stop: threading.Event, seen: list[int]) -> None:
    """Ask again and again, as cheaply as can be: the server is to be what is busy."""
    client = socket.create_connection(("127.0.0.1", running.http), timeout=60)
    while not stop.is_set():
        client.sendall(posted(data))
        head, _, rest = client.recv(1 << 16).partition(b"\r\n\r\n")
        left = int(re.findall(rb"content-length: (\d+)", head)[0]) - len(rest)
        while left:
            left -= len(client.recv(min(left, 1 << 20)))
        seen.append(int(head[9:12]))
        if b"connection: close" in head:
            client.close()
            client = socket.create_connection(("127.0.0.1", running.http), timeout=60)
    client.close()


@contextlib.contextmanager
def busy(running: Running, package: packages.Package) -> Iterator[list[int]]:
    """Keep a server at its limit by few clients; rows enough that parsing them, not the clients, takes the time."""
    prefer(running)
    stop, seen = threading.Event(), list[int]()
    data = body(package, rows=50)
    threads = [threading.Thread(target=load, args=(running, data, stop, seen)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def prefer(running: Running) -> None:
    """Let a server go before its clients, where that is allowed: it is to be what is busy, on a busy machine too."""
    for thread in psutil.Process(running.process.pid).threads():
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread.id, -10)


def at_its_limit(running: Running, looks: int) -> None:
    """Return when a server has used a whole core for so many half seconds in a row: twice is when it would grow."""
    process, full, end = psutil.Process(running.process.pid), 0, time.monotonic() + LONG
    process.cpu_percent()
    while full < looks:
        assert time.monotonic() < end, "the server never had too much to do"
        full = full + 1 if process.cpu_percent(TICK) > 100 * CORE + 5 else 0


@pytest.mark.alone
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor is one process")
def test_a_server_that_has_too_much_to_do_becomes_two_and_loses_nothing(package: packages.Package) -> None:
    with served(package) as running:
        assert numbers(running)["boatyard_processes"] == 1
        with busy(running, package) as seen:
            until(lambda: len(others(running)) == 1, LONG)
            (other,) = others(running)
            until(lambda: any(each.laddr.port == running.http for each in other.connections("tcp")), LONG)
        assert set(seen) == {200}
        found = numbers(running)
        assert found["boatyard_requests_total"] == len(seen)
        assert found["boatyard_processes"] == 2


@pytest.mark.alone
def test_one_process_stays_one_when_told_so_or_when_there_is_one_processor(
    package: packages.Package, monkeypatch: Any
) -> None:
    with served(package, "--workers", "1") as running, busy(running, package):
        at_its_limit(running, looks=4)
        assert not others(running)
    monkeypatch.setenv("BOATYARD_THREADS", "1")
    with served(package) as running, busy(running, package):
        at_its_limit(running, looks=4)
        assert not others(running)


@pytest.mark.alone
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor is one process")
def test_a_package_that_changed_since_is_served_by_the_first_process_alone(tmp_path: Path) -> None:
    package = graphs.package(tmp_path / "package", SCHEMA)
    running = ready(launch(package, "--access-log", "0"))
    (package.path / "labels.json").write_text("[]")
    lines = list[str]()

    def read() -> None:
        with running.process.stdout as output:
            for line in output:
                lines.append(line)

    reader = threading.Thread(target=read)
    reader.start()
    with busy(running, package) as seen:
        until(lambda: any("did not start (status 1)" in line for line in lines), LONG)
        at_its_limit(running, looks=4)  # it is not tried again at once
    assert set(seen) == {200} and numbers(running)["boatyard_processes"] == 1
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    reader.join()
    output = "".join(lines)
    assert "labels.json" in output and output.count("did not start (status 1)") == 1, output


def test_a_load_that_is_cancelled_is_done_everywhere_or_nowhere(
    tmp_path: Path, package: packages.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(package.path, tmp_path / "shelf" / "other")
    monkeypatch.setenv("BOATYARD_ADMIN_TOKEN", "secret")
    token = [("authorization", TOKEN["Authorization"])]
    options = ("--workers", "2", "--repository", str(tmp_path / "shelf"))
    with served(package, *options) as running, contextlib.ExitStack() as stack:
        own = [("grpc.use_local_subchannel_pool", 1)]  # a connection each: both processes are asked
        channels = [grpc.insecure_channel(f"127.0.0.1:{running.grpc}", own) for _ in range(3)]
        stubs = [GRPCInferenceServiceStub(stack.enter_context(channel)) for channel in channels]
        request = pb.RepositoryModelLoadRequest(model_name="other")
        for stub in stubs:  # the last is as fast as those that follow
            started = time.monotonic()
            stub.RepositoryModelLoad(request, metadata=token, timeout=30)
            took = time.monotonic() - started
        for part, stub in itertools.product((4, 6, 8, 9, 10), stubs):
            path = f"http://127.0.0.1:{running.http}/v2/repository/models/other/unload"
            until(lambda path=path: httpx.post(path, headers=TOKEN).status_code == 200)
            call = stub.RepositoryModelLoad.future(request, metadata=token)
            time.sleep(took * part / 11)
            call.cancel()
            time.sleep(2 * took)
            found = [httpx.get(f"http://127.0.0.1:{running.http}/v1/models").json()["models"] for _ in range(6)]
            assert all("other" in each for each in found), found


def test_tls_is_spoken_by_all(tmp_path: Path, package: packages.Package) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "certificate.pem", append=True)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    options = ("--tls-certificate", str(tmp_path / "certificate.pem"), "--tls-key", str(tmp_path / "key.pem"))
    running = launch(package, "--workers", "2", *options)
    url = f"https://127.0.0.1:{running.http}"
    found = [httpx.Client(base_url=url, verify=trust, timeout=30) for _ in range(6)]
    OPEN.extend(found)

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return found[0].get("/v2/health/ready").status_code == 200
        return False

    until(answers)
    assert {client.post("/v1/models/insects:predict", content=body(package)).status_code for client in found} == {200}
    (other,) = others(running)
    assert [each for each in other.connections("tcp") if each.laddr.port == running.http]
    with socket.create_connection(("127.0.0.1", running.http)) as plain:  # no TLS: that client's own affair
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.settimeout(10)
        with contextlib.suppress(ConnectionError):
            plain.recv(100)
    assert answers()
    running.process.send_signal(signal.SIGTERM)
    output, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0 and "Traceback" not in output, output


def narrow(package: packages.Package, descriptors: int, *options: str) -> Running:
    """Start a server that may have so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))  # the server inherits it
    try:
        return launch(package, *options)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_is_replaced_though_there_were_no_descriptors_for_a_while(package: packages.Package) -> None:
    running = ready(narrow(package, 64, "--workers", "2"))
    (other,) = others(running)
    waiting = [socket.create_connection(("127.0.0.1", running.http)) for _ in range(150)]
    time.sleep(2)  # the server looks after itself meanwhile
    for each in waiting:
        each.close()
    other.kill()
    until(lambda: numbers(running)["boatyard_processes"] == 1)
    until(lambda: numbers(running)["boatyard_processes"] == 2)
    running.process.send_signal(signal.SIGTERM)
    output, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0 and "Traceback" not in output, output


def test_clients_of_a_process_without_free_descriptors_wait(package: packages.Package) -> None:
    with served(package, "--workers", "2") as running:
        (other,) = others(running)
        soft, hard = other.rlimit(psutil.RLIMIT_NOFILE)
        other.rlimit(psutil.RLIMIT_NOFILE, (other.num_fds() + 5, hard))
        found = [socket.create_connection(("127.0.0.1", running.http), timeout=30) for _ in range(30)]
        for client in found:
            client.sendall(posted(body(package)))
        time.sleep(1.5)
        other.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        assert [client.recv(12) for client in found] == [b"HTTP/1.1 200"] * 30
        for client in found:
            client.close()


def test_a_stopped_first_process_is_said_by_the_others(package: packages.Package) -> None:
    with served(package, "--workers", "2") as running:
        found = clients(running, 6)
        os.kill(running.process.pid, signal.SIGSTOP)
        try:
            theirs = []
            for client in found:
                with contextlib.suppress(httpx.ReadTimeout):
                    assert (
                        client.post("/v1/models/insects:predict", content=body(package), timeout=1).status_code == 200
                    )
                    theirs.append(client)
            assert theirs
            assert theirs[0].get("/metrics").status_code == 504
            assert theirs[0].post("/v2/repository/models/x/load").status_code == 403
        finally:
            os.kill(running.process.pid, signal.SIGCONT)


def test_a_package_that_is_loaded_again_answers_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is half sent is answered, counts stay, and the server does not grow."""
    package = graphs.package(tmp_path / "package", graphs.image_schema((64, 64)))
    shutil.copytree(package.path, tmp_path / "shelf" / "insects")
    monkeypatch.setenv("BOATYARD_ADMIN_TOKEN", "secret")
    with served(package, "--workers", "2", "--repository", str(tmp_path / "shelf")) as running:
        (client,) = clients(running, 1)
        request = posted(body(package))
        found = [socket.create_connection(("127.0.0.1", running.http), timeout=30) for _ in range(4)]
        for half in found:
            half.sendall(request[:-20])
        memory = []
        for _ in range(50):
            client.post("/v2/repository/models/insects/load").raise_for_status()
            memory.append(psutil.Process(running.process.pid).memory_info().rss)
        for half in found:
            half.sendall(request[-20:])
        assert [half.recv(12) for half in found] == [b"HTTP/1.1 200"] * 4
        assert numbers(running)["boatyard_requests_total"] == 50 + 4
        assert max(memory[-10:]) < 1.12 * min(memory[10:20]), memory
        for half in found:
            half.close()


@pytest.mark.alone
def test_a_server_without_free_descriptors_waits_for_some(package: packages.Package) -> None:
    running = narrow(package, 60, "--workers", "1")
    ready(running)
    waiting = [socket.create_connection(("127.0.0.1", running.http)) for _ in range(80)]
    time.sleep(0.5)
    used = psutil.Process(running.process.pid).cpu_percent(1)
    assert used < 50, "it asks again and again"
    for each in waiting:
        each.close()
    until(lambda: httpx.get(f"{running.url}/v2/health/ready", timeout=30).status_code == 200)
    running.process.send_signal(signal.SIGTERM)
    output, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0 and "cannot accept connections for now" in output, output


# The numbers


def counted(events: list[tuple[str, int, float]]) -> Numbers:
    found = Numbers("insects", "1", "engine", Load(len(events), 2, 3))
    for protocol, code, seconds in events:
        found.answered(protocol, code, seconds)
        found.queue.observe(seconds)
        found.inference.observe(seconds)
        found.batch.observe(len(events))
    return found


EVENTS = st.lists(
    st.tuples(st.sampled_from(["v1", "v2", "grpc"]), st.sampled_from([0, 200, 400]), st.floats(0, 100).map(round))
)


@given(EVENTS, EVENTS)
def test_numbers_survive_the_way_between_processes_and_add_up(mine: Any, theirs: Any) -> None:
    first, second = (Numbers.from_json(orjson.loads(orjson.dumps(counted(each).to_json()))) for each in (mine, theirs))
    whole = first.plus(second).to_json()
    assert first.to_json() == counted(mine).to_json()
    assert sum(count for _, _, count in whole["requests"]) == len(mine) + len(theirs)
    assert whole["load"] == [len(mine) + len(theirs), 4, 6]
    alone = counted(mine + theirs).to_json()
    for key in ("queue", "inference"):
        assert whole[key] == alone[key]
    assert {key: value[0] for key, value in whole["total"].items()} == {
        key: value[0] for key, value in alone["total"].items()
    }
    assert first.of_the_past().to_json() == {**first.to_json(), "load": [0, 0, 0]}


BUSY, MODEL, FREE = Used(0.95, 0.6), Used(1.9, 0.1), Used(0.5, 0.5)


@pytest.mark.parametrize(
    ("processes", "wanted"),
    [
        ([BUSY], True),  # Python is what is slow: two share what there is
        ([FREE], False),
        ([MODEL], False),  # it has threads
        ([BUSY, MODEL], False),
        ([BUSY, BUSY], True),
        ([BUSY, FREE], False),
    ],
)
def test_another_process_is_wanted_where_it_would_help(processes: list[Used], wanted: bool) -> None:
    assert full(processes) is wanted
