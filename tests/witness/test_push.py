"""Checkpoints pushed off the box: whole files, never less than was there, and nothing that stops the log."""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from hsmsigner.operations.log_status import PushState
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.operations.ports.witness import Fault, FaultKind, PushTarget
from hsmsigner.operations.pushing import Pushing
from hsmsigner.transparency.note import add_lines
from hsmsigner.witness import push as push_module
from hsmsigner.witness.setup import make_targets
from tests.fakes import FakeClock
from tests.witness.growing import DEADLINE_S, at_work, until
from tests.witness.twins import LogTwin, WitnessTwin, always, http, serving

LOG = LogTwin.of(30)
T = TypeVar("T")


def run(scenario: Awaitable[T]) -> T:
    return asyncio.run(asyncio.wait_for(scenario, DEADLINE_S))


def folder_target(folder: Path, timeout_s: float = 15.0) -> PushTarget:
    return make_targets([folder.as_uri()], timeout_s=timeout_s)[0]


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def cosigned(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, note=add_lines(checkpoint.note, [WitnessTwin().line(checkpoint.note)]), witnesses=1)


def test_a_folder_gets_each_checkpoint_and_the_newest(tmp_path: Path) -> None:
    target = folder_target(tmp_path / "new" / "folder with space")
    ten, twenty = LOG.checkpoint(10), LOG.checkpoint(20)

    assert run(target.push(ten)) is None
    assert run(target.push(twenty)) is None

    expected = {"checkpoint": twenty.note, "checkpoints/10": ten.note, "checkpoints/20": twenty.note}
    assert files(tmp_path / "new" / "folder with space") == expected


def test_a_checkpoint_is_written_again_with_its_cosignatures(tmp_path: Path) -> None:
    made = LOG.checkpoint(10)
    run(folder_target(tmp_path).push(made))

    assert run(folder_target(tmp_path).push(cosigned(made))) is None

    assert files(tmp_path) == {"checkpoint": cosigned(made).note, "checkpoints/10": cosigned(made).note}


def test_another_checkpoint_of_the_same_size_is_never_written_over(tmp_path: Path) -> None:
    first = LOG.checkpoint(10)
    run(folder_target(tmp_path).push(first))

    fault = run(folder_target(tmp_path).push(LogTwin.of(30, "other").checkpoint(10)))

    assert fault is not None
    assert fault.kind is FaultKind.CONTRADICTED
    assert files(tmp_path) == {"checkpoint": first.note, "checkpoints/10": first.note}


def test_the_newest_checkpoint_never_shrinks(tmp_path: Path) -> None:
    newest = LOG.checkpoint(20)
    run(folder_target(tmp_path).push(newest))

    fault = run(folder_target(tmp_path).push(LOG.checkpoint(10)))

    assert fault is not None
    assert fault.kind is FaultKind.CONTRADICTED
    assert files(tmp_path)["checkpoint"] == newest.note


@pytest.mark.parametrize("rubbish", ["", "\n\n\n", "a\nb\nc\n", "x" * 100_000, "o\n" + "9" * 5000 + "\nr\n"])
def test_rubbish_in_place_of_the_newest_is_replaced_or_a_fault_but_never_an_exception(
    tmp_path: Path, rubbish: str
) -> None:
    (tmp_path / "checkpoint").write_text(rubbish)

    fault = run(folder_target(tmp_path).push(LOG.checkpoint(10)))

    assert fault is None or fault.kind is FaultKind.CONTRADICTED
    assert files(tmp_path)["checkpoints/10"] == LOG.checkpoint(10).note


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    fault = run(folder_target(tmp_path / "file").push(LOG.checkpoint(10)))

    assert fault is not None
    assert fault.kind is FaultKind.UNREACHABLE


def test_a_write_that_hangs_is_waited_for_once_and_never_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, begun, whole = threading.Event(), [], push_module._write

    def hanging(folder: Path, checkpoint: Checkpoint) -> Fault | None:
        begun.append(checkpoint.size)
        assert release.wait(DEADLINE_S)
        return whole(folder, checkpoint)

    monkeypatch.setattr(push_module, "_write", hanging)

    async def scenario() -> None:
        target = folder_target(tmp_path, timeout_s=0.05)
        for size in (10, 20):
            fault = await target.push(LOG.checkpoint(size))
            assert fault is not None
            assert fault.kind is FaultKind.TIMED_OUT
        assert begun == [10]
        # From here on a disk may be as slow as it likes, and still nothing is written twice.
        target._timeout_s = DEADLINE_S  # type: ignore[attr-defined]
        release.set()

        async def is_written() -> bool:
            return await target.push(LOG.checkpoint(20)) is None

        await until(is_written)
        assert begun == [10, 20]
        assert set(files(tmp_path)) == {"checkpoint", "checkpoints/10", "checkpoints/20"}

    run(scenario())


def test_an_endpoint_is_put_each_checkpoint_and_the_newest() -> None:
    async def scenario() -> tuple[PushTarget, list[tuple[str, str, str, bytes]]]:
        got: list[tuple[str, str, str, bytes]] = []

        async def answer(method: str, path: str, head: dict[str, str], body: bytes, out: asyncio.StreamWriter) -> None:
            got.append((method, path, head.get("authorization", ""), body))
            out.write(http(201))

        async with serving(answer) as url:
            secret = url.replace("http://", "http://user:p%40ss@") + "/bucket/?token=hidden"
            target = make_targets([secret])[0]
            assert await target.push(LOG.checkpoint(10)) is None
        return target, got

    target, got = run(scenario())

    authorization = "Basic " + base64.b64encode(b"user:p@ss").decode()
    note = LOG.checkpoint(10).note.encode()
    assert got == [("PUT", f"/bucket/{name}?token=hidden", authorization, note) for name in ("10", "latest")]
    assert target.shown.startswith("http://127.0.0.1:")
    assert target.shown.endswith("/bucket")


@pytest.mark.parametrize("status", [301, 403, 500])
def test_an_endpoint_that_says_no_is_a_fault(status: int) -> None:
    async def scenario() -> Fault | None:
        async with serving(always(http(status, b"", "text/plain", "Location: http://127.0.0.1:1/"))) as url:
            return await make_targets([url])[0].push(LOG.checkpoint(10))

    fault = run(scenario())

    assert fault is not None
    assert fault.kind is FaultKind.REFUSED


def test_a_place_that_fails_gets_the_newest_when_it_is_well_and_delays_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        is_well = asyncio.Event()
        paths: list[str] = []
        refused: list[str] = []

        async def answer(_m: str, path: str, _h: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> None:
            (paths if is_well.is_set() else refused).append(path)
            writer.write(http(200 if is_well.is_set() else 503))

        clock = FakeClock()
        async with serving(answer) as url:
            pushing = Pushing(make_targets([url, tmp_path.as_uri()]), clock, pause_s=0.01)
            async with at_work(pushing.run()):
                for size in (10, 20, 30):
                    await pushing.on_signed(LOG.checkpoint(size))
                    await until((tmp_path / "checkpoints" / str(size)).exists)
                await until(lambda: bool(pushing.status()[0].fault))
                # Nothing older is under way any more.
                await until(lambda: "/30" in refused)
                is_well.set()
                await until(lambda: not pushing.status()[0].fault)
                await until(lambda: pushing.status()[1].pushed_size == 30)

                assert paths == ["/30", "/latest"]
                assert pushing.status() == [
                    PushState(url, 30, clock(), ""),
                    PushState(tmp_path.as_uri(), 30, clock(), ""),
                ]

    run(scenario())


def test_credentials_are_in_no_status_no_repr_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> str:
        targets = make_targets(["http://user:hunter2@127.0.0.1:1/put?token=hunter2", "http://hunter2@nowhere.invalid/"])
        pushing = Pushing(targets, FakeClock(), pause_s=0.01)
        async with at_work(pushing.run()):
            await pushing.on_signed(LOG.checkpoint(10))
            await until(lambda: all(state.fault for state in pushing.status()))
        endpoints = [target._endpoint for target in targets]  # type: ignore[attr-defined]
        return repr(pushing.status()) + repr(endpoints)

    with caplog.at_level(logging.DEBUG):
        shown = run(scenario())

    assert "127.0.0.1:1/put" in shown
    assert "hunter2" not in shown + caplog.text
