"""What every process does first: here, on which CPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from hsmsigner.errors import ConfigurationError
from hsmsigner.process import share_one_cpu

ALLOWED = os.sched_getaffinity(0)


def in_a_thread(work: Callable[[], object]) -> None:
    """Run there: the choice is that of a thread and of those that it starts, and must not be this process's."""
    broken: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            broken.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if broken:
        raise broken[0]


@pytest.mark.parametrize("wanted", ["auto", max(ALLOWED)])
def test_a_thread_and_those_it_starts_share_one_cpu(wanted: str | int) -> None:
    def work() -> None:
        cpu = share_one_cpu(wanted)
        assert cpu in ALLOWED
        assert wanted in ("auto", cpu)
        inherited: list[set[int]] = []
        child = threading.Thread(target=lambda: inherited.append(os.sched_getaffinity(0)))
        child.start()
        child.join()
        assert inherited == [os.sched_getaffinity(0)] == [{cpu}]

    in_a_thread(work)


def test_any_cpu_leaves_the_choice_to_the_system() -> None:
    def work() -> None:
        assert share_one_cpu("any") is None
        assert os.sched_getaffinity(0) == ALLOWED

    in_a_thread(work)


def test_a_cpu_that_may_not_be_used_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"frontend_cpu: this process may not use CPU 4095; it may use \["):
        in_a_thread(lambda: share_one_cpu(4095))
