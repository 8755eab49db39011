"""The queue before the model: many at once, each its own answer, none waits for nothing."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boatyard.data.schema import Array
from boatyard.errors import RequestError
from boatyard.prediction import Answers
from serving import inference, resting
from serving.batching import Batcher, Busy, Closed, Late, Left, Limits
from serving.direct import Direct, Unread

pytestmark = pytest.mark.alone  # paces, waits and turns are measured


class Model:
    """Doubles its rows; notes the batches that it saw, and waits at a door when it has one."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.rows: list[float] = []
        self.threads: list[str] = []
        self.door = threading.Event()
        self.door.set()

    def __call__(self, inputs: Mapping[str, Array]) -> Answers:
        self.door.wait(10)
        rows = inputs["x"]
        self.threads.append(threading.current_thread().name)
        self.batches.append(len(rows))
        self.rows += rows.tolist()
        if (rows == 13).any():
            raise ValueError("unlucky")
        return Answers({"value": np.where(rows == 99, np.nan, rows * 2).astype(np.float32)})


def run(
    scenario: Callable[[Batcher, Model], Coroutine[Any, Any, None]], limits: Limits | None = None, at_once: int = 1
) -> Model:
    model = Model()
    batcher = Batcher(model, limits or Limits(), at_once=at_once)

    async def whole() -> None:
        await scenario(batcher, model)
        assert (batcher.load.requests, batcher.load.rows, batcher.load.size) == (0, 0, 0)

    asyncio.run(whole())
    batcher.close()
    return model


def paced(batcher: Batcher, seconds: float) -> Batcher:
    """Let a batcher think that a row takes so long, whatever else is at work."""
    batcher._pace = batcher._alone = seconds
    return batcher


def x(*values: float) -> dict[str, Array]:
    return {"x": np.array(values, np.float32)}


async def answer(batcher: Batcher, *values: float, seconds: float | None = None) -> list[float]:
    answers = await batcher.submit(x(*values), seconds)
    assert answers.values is not None
    found: list[float] = answers.values.tolist()
    return found


async def held(batcher: Batcher, model: Model) -> asyncio.Task[list[float]]:
    """Keep the model's thread at work until its door opens."""
    model.door.clear()
    first = asyncio.create_task(answer(batcher, 1))
    while batcher._queue or not batcher.load.requests:
        await asyncio.sleep(0.001)
    return first


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=40), min_size=1, max_size=40),
    st.integers(1, 50),
    st.integers(1, 4),
    st.sampled_from((1e-6, 0.01)),
)
def test_each_request_gets_its_own_answer_whatever_the_batch(
    requests: list[list[int]], batch: int, at_once: int, pace: float
) -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        paced(batcher, pace)  # seconds a row took of late: the event loop answers, or threads do
        found = await asyncio.gather(*(answer(batcher, *values) for values in requests))
        assert found == [[2.0 * value for value in values] for values in requests]

    model = run(scenario, Limits(batch=batch), at_once)
    assert max(model.batches) <= batch
    assert len(model.rows) == sum(map(len, requests))


GOOD, WRONG = b'{"instances":[[[1,2],[3,%d]]]}', b'{"instances":[[[1,2],[3,%d000]]]}'  # bytes, and beyond


@pytest.mark.parametrize("pace", [1e-6, 0.01])  # the event loop answers, or threads do
@pytest.mark.parametrize("also_read", [False, True])
@pytest.mark.parametrize("wrong", [(), (2, 5, 8), (0,)])
def test_a_body_that_is_wrong_when_it_is_read_fails_alone(pace: float, also_read: bool, wrong: tuple[int, ...]) -> None:
    schema = graphs.image_schema((2, 2))
    direct = Direct(schema)
    seen: list[int] = []

    def model(inputs: Mapping[str, Array]) -> Answers:
        seen.append(len(inputs["image"]))
        return Answers({"value": inputs["image"][:, 1, 1].astype(np.float32)})

    async def scenario() -> list[Any]:
        batcher = Batcher(model, Limits(), at_once=2, direct=direct)
        paced(batcher, pace)
        asked = [direct.cut((WRONG if n in wrong else GOOD) % (n + 1)) for n in range(9)]
        assert all(asked)
        read = [{"image": np.full((1, 2, 2), 100, np.uint8)}] if also_read else []
        found = await asyncio.gather(
            *(batcher.submit(each) for each in [*asked, *read] if each), return_exceptions=True
        )
        assert (batcher.load.requests, batcher.load.rows, batcher.load.size) == (0, 0, 0)
        batcher.close()
        return found

    found = asyncio.run(scenario())
    for n in range(9):
        if n in wrong:
            assert isinstance(found[n], RequestError) and f"found {n + 1}000" in str(found[n])
        else:
            assert found[n].values.tolist() == [n + 1]
    assert sum(seen) == 9 - len(wrong) + also_read and (not also_read or found[9].values.tolist() == [100])


def test_a_body_waits_to_be_read_only_where_its_turn_is_now() -> None:
    """Else a client would wait for a model that takes long, to hear that its body was wrong."""
    schema = graphs.image_schema((2, 2))
    batcher = Batcher(Model(), Limits())
    model: Any = SimpleNamespace(schema=schema, batcher=batcher)
    paced(batcher, 1e-6)
    assert isinstance(inference.predict(model, Direct(schema), WRONG % 1).inputs, Unread)
    batcher.load.rows = 1000
    with pytest.raises(RequestError, match="found 1000"):
        inference.predict(model, Direct(schema), WRONG % 1)


@pytest.mark.parametrize("pace", [1e-6, 0.01])
def test_no_memory_to_read_bodies_with_fails_those_alone(monkeypatch: Any, pace: float) -> None:
    direct = Direct(graphs.image_schema((2, 2)))
    together = direct.together

    def starved(unread: Sequence[Unread]) -> dict[str, Array] | None:
        if len(unread) > 1 or b"[3,5]" in unread[0].row:
            raise MemoryError
        return together(unread)

    monkeypatch.setattr(direct, "together", starved)

    async def scenario() -> list[Any]:
        batcher = Batcher(lambda inputs: Answers({"value": inputs["image"][:, 1, 1]}), Limits(), direct=direct)
        paced(batcher, pace)
        asked = [each for each in (direct.cut(GOOD % n) for n in range(9)) if each]
        found = [await asyncio.gather(*map(batcher.submit, asked), return_exceptions=True) for _ in range(2)]
        batcher.close()
        return found

    for found in asyncio.run(scenario()):
        assert isinstance(found.pop(5), MemoryError)
        assert [each.values.tolist() for each in found] == [[n] for n in range(9) if n != 5]


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rests of a server, which take no time; its only model is asked for long."""
    found: list[float] = []
    monkeypatch.setattr(resting.time, "sleep", found.append)
    monkeypatch.setattr(resting, "ALONE", 0.0)
    return found


async def refused(batcher: Batcher, seconds: float | None = None) -> None:
    """Ask a full queue until it had the time to rest."""
    for _ in range(50):
        with pytest.raises(Busy):
            batcher.expect(seconds)
    for _ in range(4):
        await asyncio.sleep(0)


def test_a_full_queue_rests_once_for_all_that_it_refuses(rests: list[float]) -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        paced(batcher, 1.0)
        with pytest.raises(Busy):
            batcher.expect()
        assert not rests  # what was read until now is answered before
        for expected in (1, 2):
            await refused(batcher)
            assert rests == [resting.REST] * expected
        model.door.set()
        assert await first == [2.0]

    run(scenario, Limits(rows=1))


def test_little_work_is_no_reason_to_rest_whatever_deadline_a_client_sends(rests: list[float]) -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        paced(batcher, 0.9 * resting.DEEP)
        await refused(batcher, 1e-6)
        paced(batcher, 1.1 * resting.DEEP)
        with pytest.raises(Busy):
            batcher.expect(1e-6)
        paced(batcher, 0.9 * resting.DEEP)  # by the time of the rest
        for _ in range(4):
            await asyncio.sleep(0)
        model.door.set()
        assert await first == [2.0]

    run(scenario)
    assert not rests


def test_a_full_model_does_not_rest_while_others_are_asked(rests: list[float], monkeypatch: Any) -> None:
    monkeypatch.setattr(resting, "ALONE", 0.5)
    rest, other = resting.Rest(), Model()

    async def scenario() -> None:
        full, free = (Batcher(model, Limits(rows=1), rest=rest) for model in (model, other))
        first = await held(full, model)
        paced(full, 1.0)
        assert await answer(free, 1) == [2.0]
        await refused(full)
        rest.asked(full)
        await refused(full)
        assert not rests
        rest._alone -= 0.5
        await refused(full)
        assert rests == [resting.REST]
        model.door.set()
        await first
        full.close()
        free.close()

    model = Model()
    asyncio.run(scenario())


def test_a_clients_error_holds_nothing_of_its_batch() -> None:
    direct = Direct(graphs.numbers_schema())
    bodies = [b'{"instances":[[1,"two"]]}', b'{"instances":[[1,2]]}']
    unread = [Unread(body, body[14:-2]) for body in bodies]

    async def scenario() -> Exception:
        batcher = Batcher(lambda inputs: Answers({"value": inputs["features"][:, 0]}), Limits(), direct=direct)
        bad, good = await asyncio.gather(*map(batcher.submit, unread), return_exceptions=True)
        batcher.close()
        assert isinstance(good, Answers)
        return bad

    error = asyncio.run(scenario())
    assert isinstance(error, RequestError)
    assert error.__cause__ is None and error.__context__ is None
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert not {"_read", "_answer"} & set(frames)


def test_what_waits_is_one_batch() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        rest = [asyncio.create_task(answer(batcher, value)) for value in range(10)]
        await asyncio.sleep(0)
        model.door.set()
        await asyncio.gather(first, *rest)

    assert run(scenario).batches == [1, 10]


def test_a_small_request_does_not_wait_for_the_whole_of_a_large_one() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        large = asyncio.create_task(answer(batcher, *[3.0] * 1000))
        small = asyncio.create_task(answer(batcher, 4))
        await asyncio.sleep(0)
        model.door.set()
        assert await small == [8]
        assert await large == [6.0] * 1000
        await first

    model = run(scenario, Limits(batch=8))
    assert 4 in model.rows[: 1 + 8 + 8 + 1]


@pytest.mark.parametrize(("bad", "kind"), [(13, ValueError), (99, RequestError)])
def test_a_bad_row_fails_its_own_request_only(bad: float, kind: type[Exception]) -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        tasks = [asyncio.create_task(answer(batcher, *values)) for values in ([1], [2, bad], [3, 4])]
        await asyncio.sleep(0)
        model.door.set()
        one, two, three = await asyncio.gather(*tasks, return_exceptions=True)
        assert (one, three) == ([2], [6, 8])
        assert isinstance(two, kind)
        await first
        assert await answer(batcher, 5) == [10]

    run(scenario)


def test_whoever_left_is_not_worked_for() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        tasks = [asyncio.create_task(answer(batcher, *[value] * 20)) for value in (3.0, 4.0, 5.0)]
        await asyncio.sleep(0)
        tasks[1].cancel("hung up")
        await asyncio.sleep(0)
        model.door.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[0] == [6.0] * 20 and found[2] == [10.0] * 20
        assert isinstance(found[1], asyncio.CancelledError)
        await first

    model = run(scenario, Limits(batch=8))
    assert 4.0 not in model.rows and model.rows.count(3.0) == 20


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        second = asyncio.create_task(answer(batcher, 1, 2))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="come again in") as refused:
            await answer(batcher, 1)
        assert refused.value.seconds >= 1
        model.door.set()
        assert await second == [2, 4]
        await first
        assert await answer(batcher, *[1.0] * 10) == [2.0] * 10  # alone it is taken, however large

    run(scenario, Limits(rows=3))


def test_a_refusal_says_the_same_for_a_while_only_to_who_asked_the_same() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        async def refused(rows: int) -> str:
            with pytest.raises(Busy) as found:
                await answer(batcher, *[1.0] * rows)
            return str(found.value)

        first = await held(batcher, model)
        waiting = [asyncio.create_task(answer(batcher, 1))]
        await asyncio.sleep(0)
        said = [await refused(rows) for rows in (2, 2, 3, 2)]
        assert said[0] == said[1] == said[3] != said[2]
        assert "room for 2 rows" in said[0] and "room for 3 rows" in said[2]
        waiting.append(asyncio.create_task(answer(batcher, 1)))
        await asyncio.sleep(0.1)
        assert "found 3 rows of 3 requests" in await refused(2)
        model.door.set()
        await asyncio.gather(first, *waiting)

    run(scenario, Limits(rows=3))


def test_what_would_come_to_its_turn_too_late_is_refused_at_once() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        paced(batcher, 0.1)  # seconds a row took of late
        waiting = [asyncio.create_task(answer(batcher, *[1.0] * 10, seconds=20)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="within 2 s"):  # 3 s are ahead of it
            await answer(batcher, 1, seconds=2)
        with pytest.raises(Busy):
            batcher.expect(2)
        batcher.expect(20)
        patient = asyncio.create_task(answer(batcher, 1, seconds=20))
        await asyncio.sleep(0)
        model.door.set()
        await asyncio.gather(first, patient, *waiting)

    run(scenario)


def test_bytes_are_bounded_too() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        with pytest.raises(Busy):
            await answer(batcher, 1, 2)
        model.door.set()
        await first

    run(scenario, Limits(bytes=11))


def test_what_is_late_is_dropped_and_said_and_not_worked_on() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        late = asyncio.create_task(answer(batcher, 7, seconds=0.01))
        patient = asyncio.create_task(answer(batcher, 8, seconds=30))
        await asyncio.sleep(0.05)
        model.door.set()
        with pytest.raises(Late):
            await late
        assert await patient == [16]
        await first

    assert run(scenario).batches == [1, 1]


def test_a_client_that_hung_up_leaves_the_others_alone() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        gone, stays = (asyncio.create_task(answer(batcher, value)) for value in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        model.door.set()
        assert await stays == [4]
        await asyncio.gather(first, gone, return_exceptions=True)

    run(scenario)


def test_a_closed_model_answers_what_waits_and_takes_no_more() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        first = await held(batcher, model)
        batcher.close()
        model.door.set()
        assert await first == [2]
        with pytest.raises(Closed):
            await answer(batcher, 1)

    run(scenario)


def test_an_idle_model_answers_at_once() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        await answer(batcher, 1)
        started = time.perf_counter()
        for _ in range(50):
            await answer(batcher, 1)
        assert (time.perf_counter() - started) / 50 < 0.01

    run(scenario)


def test_what_is_quick_is_answered_by_the_loop_and_what_is_not_by_the_thread() -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        for _ in range(60):  # until it has seen how quick the model is
            await answer(batcher, 1)
        model.threads.clear()
        await asyncio.gather(*(answer(batcher, 1) for _ in range(3)))
        assert model.threads == ["MainThread"]
        paced(batcher, 1.0)  # seconds a row took of late
        await answer(batcher, 1)
        assert model.threads == ["MainThread", "inference"]

    run(scenario)


def test_a_light_model_has_whole_batches_on_the_loop_however_many_wait() -> None:
    """A thread would take what has come by the time it wakes, and the loop would wait for it."""

    async def scenario(batcher: Batcher, model: Model) -> None:
        await asyncio.gather(*(answer(paced(batcher, 0.00005), value) for value in range(14, 94)))
        assert (model.batches, model.threads) == ([64, 16], ["MainThread"] * 2)

    run(scenario)


@pytest.mark.parametrize(("rows", "name"), [(4, "MainThread"), (11, "inference")])
def test_a_request_is_light_by_what_all_its_rows_take(rows: int, name: str) -> None:
    async def scenario(batcher: Batcher, model: Model) -> None:
        paced(batcher, 0.0001)
        await asyncio.gather(*(answer(batcher, *[1.0] * rows) for _ in range(4)))
        assert set(model.threads) == {name}

    run(scenario)


def test_the_loop_reads_on_between_turns() -> None:
    """With a second of light work in the queue, whatever else it has to do waits for a few hundredths."""
    waits: list[float] = []

    def model(inputs: Mapping[str, Array]) -> Answers:
        time.sleep(0.0002 * len(inputs["x"]))
        return Answers({"value": inputs["x"] * 2})

    async def clients() -> None:
        batcher = paced(Batcher(model, Limits()), 0.0002)
        asked = [asyncio.ensure_future(answer(batcher, 1)) for _ in range(2500)]
        await asyncio.sleep(0)
        while batcher.load.requests:
            started = time.monotonic()
            await asyncio.sleep(0)
            waits.append(time.monotonic() - started)
        await asyncio.gather(*asked)
        batcher.close()

    asyncio.run(clients())
    assert len(waits) > 10 and sorted(waits)[len(waits) // 2] < 0.1


def test_what_a_thread_works_on_goes_back_to_the_loop_once_it_is_light() -> None:
    """A thread waits for the interpreter too: that is not what the model takes."""

    async def scenario(batcher: Batcher, model: Model) -> None:
        paced(batcher, 1.0)
        for _ in range(200):
            await asyncio.gather(*(answer(batcher, 1) for _ in range(8)))
        assert model.threads[0] == "inference" and set(model.threads[-20:]) == {"MainThread"}
        for _ in range(3):
            batcher._note(0.01, 0.0)  # others had the processor
        assert batcher.is_light()

    run(scenario)


def test_a_full_queue_counts_the_seconds_in_which_the_loop_read() -> None:
    """Else a server that has much to refuse takes more than it answers in time."""

    async def reading(seconds: float, requests: int) -> float:
        batcher = paced(Batcher(Crowd(0.0002), Limits(batch=8)), 0.0002)
        asked = [asyncio.ensure_future(answer(batcher, 1)) for _ in range(requests)]
        paces = []
        while batcher.load.requests or not batcher._came:
            await asyncio.sleep(0)
            time.sleep(seconds)
            paces.append(batcher._pace)
        await asyncio.gather(*asked)
        batcher.close()
        return float(np.median(paces))

    idle, full, much = asyncio.run(reading(0.1, 4)), asyncio.run(reading(0, 800)), asyncio.run(reading(0.1, 800))
    assert max(idle, full) < 0.0006 < much


def test_a_time_without_requests_is_none_that_the_loop_read() -> None:
    async def clients() -> None:
        batcher = paced(Batcher(Crowd(0.0002), Limits(batch=8)), 0.0002)
        asked = [asyncio.ensure_future(answer(batcher, 1)) for _ in range(100)]
        while not batcher._behind:
            await asyncio.sleep(0)
        paced(batcher, 0.1)  # threads do the rest
        await asyncio.gather(*asked)
        await asyncio.sleep(0.5)
        await answer(paced(batcher, 0.0002), 1)
        assert batcher._pace < 0.005
        batcher.close()

    asyncio.run(clients())


class Crowd:
    """Doubles its rows, slowly; notes how many run it at once, the batches, and how often it failed."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.at_work, self.most = seconds, 0, 0
        self.batches: list[int] = []
        self.lock = threading.Lock()

    def __call__(self, inputs: Mapping[str, Array]) -> Answers:
        with self.lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            self.batches.append(len(inputs["x"]))
        time.sleep(self.seconds * len(inputs["x"]))
        with self.lock:
            self.at_work -= 1
        if (inputs["x"] == 13).any():
            raise ValueError("unlucky")
        return Answers({"value": inputs["x"] * 2})


def test_what_takes_the_model_long_is_shared_by_threads() -> None:
    model = Crowd(0.004)
    batcher = Batcher(model, Limits(), at_once=3)

    async def clients() -> None:
        await answer(batcher, 0)
        model.batches.clear()
        found = await asyncio.gather(*(answer(batcher, value) for value in range(12)))
        assert found == [[2 * value] for value in range(12)]

    asyncio.run(clients())
    batcher.close()
    assert (model.most, sorted(model.batches)) == (3, [4, 4, 4])


def test_one_large_request_is_shared_by_threads_and_comes_back_in_order() -> None:
    model = Crowd(0.002)
    batcher = Batcher(model, Limits(batch=16), at_once=2)
    rows = [float(value) for value in range(14, 114)]

    async def client() -> None:
        assert await answer(batcher, *rows) == [2 * row for row in rows]

    asyncio.run(client())
    batcher.close()
    assert model.most == 2 and sum(model.batches) == 100


def test_a_large_request_that_fails_in_one_thread_fails_once_and_leaves_the_others_alone() -> None:
    model = Crowd(0.002)
    batcher = Batcher(model, Limits(batch=8), at_once=3)

    async def clients() -> None:
        for _ in range(10):
            bad = asyncio.create_task(answer(batcher, *range(40)))
            good = [asyncio.create_task(answer(batcher, *range(20, 45))) for _ in range(3)]
            with pytest.raises(ValueError, match="unlucky"):
                await bad
            assert await asyncio.gather(*good) == [[2.0 * row for row in range(20, 45)]] * 3
        await asyncio.sleep(0.1)  # what was worked on for nobody ends
        assert (batcher.load.requests, batcher.load.rows, batcher.load.size) == (0, 0, 0)
        assert batcher._came == batcher._taken and batcher._running == 0

    asyncio.run(clients())
    batcher.close()


@settings(deadline=None, max_examples=25)
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.sampled_from((1, 2, 3, 4, 5, 13)), min_size=1, max_size=60),
            st.sampled_from((0.002, 0.02, 30.0)),  # seconds that the client waits
            st.sampled_from((None, None, 0.0, 0.004)),  # seconds until it hangs up
        ),
        min_size=1,
        max_size=25,
    ),
    batch=st.sampled_from((1, 4, 16)),
    at_once=st.integers(1, 4),
    pace=st.sampled_from((1e-6, 0.0005, 0.005)),
)
def test_each_request_ends_once_whatever_happens(
    requests: list[tuple[list[int], float, float | None]], batch: int, at_once: int, pace: float
) -> None:
    batcher = Batcher(Crowd(0.0002), Limits(batch=batch), at_once=at_once)
    ends: list[list[tuple[Answers | None, Exception | None]]] = [[] for _ in requests]

    async def clients() -> None:
        loop = asyncio.get_running_loop()
        paced(batcher, pace)
        for (rows, seconds, leaves), end in zip(requests, ends, strict=True):
            try:
                waiting = batcher.queue(x(*rows), lambda *found, end=end: end.append(found), seconds)
            except Busy as error:
                end.append((None, error))
                continue
            if leaves is not None:
                loop.call_later(leaves, waiting.leave)
            if len(rows) % 3 == 0:
                await asyncio.sleep(0)
        until = time.monotonic() + 30
        while not all(ends) and time.monotonic() < until:
            await asyncio.sleep(0.001)
        while batcher._running:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.002)
        assert (batcher.load.requests, batcher.load.rows, batcher.load.size) == (0, 0, 0)

    asyncio.run(clients())
    batcher.close()
    for (rows, seconds, leaves), end in zip(requests, ends, strict=True):
        ((answers, error),) = end
        if answers is not None:
            assert (
                answers.values is not None and answers.values.tolist() == [2 * row for row in rows] and 13 not in rows
            )
        elif isinstance(error, ValueError):
            assert 13 in rows
        elif isinstance(error, Left):
            assert leaves is not None
        else:
            assert isinstance(error, Late | Busy) and (seconds < 1 or isinstance(error, Busy))


def test_what_the_loop_does_more_work_for_than_the_model_stays_with_one_thread() -> None:
    model = Crowd(0.0)
    batcher = Batcher(model, Limits(), at_once=4)

    async def clients() -> None:
        await answer(batcher, 0)
        paced(batcher, 0.00005)
        await asyncio.gather(*(answer(batcher, value) for value in range(14, 114)))

    asyncio.run(clients())
    batcher.close()
    assert model.most == 1 and batcher._threads == 1


def test_threads_that_sleep_wake_for_what_comes_and_end_when_the_model_is_closed() -> None:
    model = Crowd(0.0005)
    batcher = Batcher(model, Limits(batch=4), at_once=4)

    async def client(value: float) -> None:
        for turn in range(60):
            assert await answer(batcher, value + turn) == [2 * (value + turn)]
            paced(batcher, (0.01, 0.001, 0.0001)[turn % 3])  # many threads, few, none

    async def clients() -> None:
        await asyncio.wait_for(asyncio.gather(*(client(100.0 * n) for n in range(1, 17))), 60)

    before = threading.active_count()
    asyncio.run(clients())
    assert 1 < model.most <= 4
    batcher.close()
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_the_loop_and_the_thread_never_run_the_model_at_once() -> None:
    at_work, most, answered = 0, 0, 0

    def model(inputs: Mapping[str, Array]) -> Answers:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.0002)
        at_work -= 1
        return Answers({"value": inputs["x"] * 2})

    batcher = Batcher(model, Limits(batch=2))

    async def client(value: float) -> None:
        nonlocal answered
        for turn in range(40):
            assert await answer(batcher, value + turn) == [2 * (value + turn)]
            paced(batcher, 1e-6 if turn % 2 else 1.0)  # now one, now the other
            answered += 1

    async def clients() -> None:
        await asyncio.gather(*(client(100.0 * n) for n in range(12)))

    asyncio.run(clients())
    batcher.close()
    assert (most, answered) == (1, 480)
