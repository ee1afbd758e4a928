"""Threads: the caller's setting stays, parts keep their order, and nested calls do not wait for each other."""

import os
import threading
import warnings

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

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


def numpy_threads():
    return [library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()]


def jobs_of(dtype, rows=700, terms=13, columns=1024):
    """Two products, the second with rows that go to places, and the product."""
    a, b = (torch.randn(shape, dtype=dtype) for shape in ((rows, terms), (terms, columns)))
    out, moved = torch.zeros(2, rows, columns, dtype=dtype)
    return [(a, b, out, None), (a, b, moved, torch.randperm(rows))], a @ b


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 3, 700])
def test_products_are_those_of_torch_to_rounding(count, dtype, rows):
    jobs, expected = jobs_of(dtype, rows)
    threads.products(jobs)
    (_, _, out, _), (_, _, moved, places) = jobs
    for found in (out, moved[places]):
        assert torch.allclose(found, expected, rtol=0, atol=50 * torch.finfo(dtype).eps * float(expected.abs().max()))


def test_products_of_views_parameters_and_inference_tensors(count):
    """As embeddings and callers give them: transposed, with gaps, of a trained core, made in inference mode."""
    a, b, wide = torch.randn(13, 400), torch.nn.Parameter(torch.randn(13, 600)), torch.zeros(400, 1200)
    with torch.inference_mode():
        inner = torch.randn(400, 13)
        threads.products([(a.T, b, wide[:, ::2], None), (inner, b, done := torch.empty(400, 600), None)])
    assert torch.allclose(wide[:, ::2], a.T @ b.detach(), atol=1e-4)
    assert torch.allclose(done, inner @ b.detach(), atol=1e-4)
    assert not wide[:, 1::2].any()


def test_products_of_numbers_that_are_not_finite_raise_nothing(count):
    a, b, out = torch.ones(400, 8), torch.full((8, 600), torch.inf), torch.empty(400, 600)
    with np.errstate(all="raise"):
        threads.products([(a, b, out, None)])
    assert (out == torch.inf).all()


def test_threads_of_numpy_are_left_as_they_were(count):
    before = numpy_threads()
    jobs, _ = jobs_of(torch.float32, 2000)
    running = [threading.Thread(target=lambda: [threads.products(jobs[:1]) for _ in range(20)]) for _ in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert numpy_threads() == before


def test_threads_of_numpy_are_left_as_they_were_after_an_error(count):
    before = numpy_threads()
    with pytest.raises(ValueError, match="matmul"):
        threads.products([(torch.ones(900, 8), torch.ones(9, 600), torch.ones(900, 600), None)])
    assert numpy_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_child_process_computes_products_and_has_the_threads_of_its_parent(count):
    before, (jobs, expected) = numpy_threads(), jobs_of(torch.float32)
    with threads._one_thread, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where other threads run
        child = os.fork()
        if not child:  # where OpenMP, and with it what torch splits over threads, would wait for ever
            threads.products(jobs[:1])
            close = np.allclose(jobs[0][2].numpy(), expected.numpy(), atol=1e-4)
            grandchild = os.fork()
            if not grandchild:
                os._exit(0)
            os._exit(os.waitpid(grandchild, 0)[1] or (0 if close and numpy_threads() == before else 1))
    assert os.waitpid(child, 0)[1] == 0
    assert numpy_threads() == before


def test_products_of_no_terms_are_zero_and_those_of_no_columns_or_rows_nothing(count):
    out = torch.full((5, 7), 9.0)
    nothing = torch.empty(5, 0)
    threads.products(
        [(torch.ones(5, 0), torch.ones(0, 7), out, None), (torch.ones(5, 2), torch.ones(2, 0), nothing, None)]
    )
    assert not out.any()
    out.fill_(9)
    threads.products([(torch.ones(0, 3), torch.ones(3, 7), out[:0], None)])
    threads.products([])
    assert (out == 9).all()


def test_a_product_leaves_the_number_of_threads_that_the_caller_has_set(count):
    jobs, _ = jobs_of(torch.float32, 3000)
    threads.products(jobs)
    assert torch.get_num_threads() == threads.count() == count
