"""The queue in front of the commit cycle: whole groups, in order, while there is room."""

from __future__ import annotations

import pytest

from hsmsigner.operations.jobs import Group, Job
from hsmsigner.operations.ports import RequestKey
from hsmsigner.operations.queue import RequestQueue
from tests.unit.samples import request


def group(jobs: int) -> Group:
    key = RequestKey("cn:a", request().request_id)
    made = [Job(request(), key, lambda _answer: None, None) for _ in range(jobs)]
    return Group(made, all_or_nothing=False, size_bytes=jobs, is_abandoned=lambda: False)


@pytest.mark.parametrize(
    ("sizes", "room", "taken"),
    [
        ([1, 2, 3], 6, [1, 2, 3]),
        ([1, 2, 3], 5, [1, 2]),
        ([4, 1], 3, [4]),
        ([1, 4], 3, [1]),
        ([1], 0, []),
        ([4], -2, []),
        ([], 5, []),
    ],
)
def test_groups_are_taken_whole_and_in_order_while_there_is_room(sizes: list[int], room: int, taken: list[int]) -> None:
    queue = RequestQueue(100, 100)
    for size in sizes:
        queue.add(group(size))

    assert [len(one.jobs) for one in queue.take(room)] == taken
    assert len(queue) == sum(sizes) - sum(taken)
