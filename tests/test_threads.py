"""Threads: the caller's setting stays, parts keep their order, and nested calls do not wait for each other."""

import pytest
import torch

from neumatc import threads


@pytest.fixture(params=[1, 2, 3])
def count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_parts(count):
    assert threads.each(lambda i: i * i, range(20)) == [i * i for i in range(20)]


def test_the_setting_is_left_as_it_was(count):
    threads.each(lambda i: i, range(4))
    with threads.alone():
        assert torch.get_num_threads() == 1
        assert threads.count() == count
    assert torch.get_num_threads() == threads.count() == count


def test_the_setting_is_left_as_it_was_after_an_error(count):
    def fail(i):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        threads.each(fail, range(4))
    assert torch.get_num_threads() == threads.count() == count


def test_every_part_is_computed_on_one_core(count):
    assert threads.each(lambda i: torch.get_num_threads(), range(4)) == [1] * 4


def test_nested_calls_come_to_an_end(count):
    assert threads.each(lambda i: sum(threads.each(lambda j: i * j, range(4))), range(6)) == [6 * i for i in range(6)]


def test_inference_mode_reaches_the_parts(count):
    x = torch.zeros(4)
    with torch.inference_mode():
        y = torch.zeros(4)
        threads.each(lambda i: y[i].fill_(i), range(4))
    threads.each(lambda i: x[i].fill_(i), range(4))
    assert x.tolist() == y.tolist() == [0, 1, 2, 3]
