"""Sums of matrix products do not depend on the number of threads."""

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from ofa_deploy.system import one_blas_thread


def blas_threads() -> set[int]:
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_all_of_blas_has_one_thread_within_and_its_own_after() -> None:
    @one_blas_thread
    def product(n: int, *, scale: float) -> tuple[set[int], float]:
        return blas_threads(), scale * float(np.trace(np.ones((n, n)) @ np.ones((n, n))))

    with threadpool_limits(limits=2, user_api="blas"):
        product(3, scale=1.0)  # which loads scipy's
        before = blas_threads()
        assert product(3, scale=2.0) == ({1}, 18.0)
        assert blas_threads() == before
    assert product.__name__ == "product"


def test_same_bits_on_any_number_of_threads() -> None:
    left = np.random.default_rng(0).normal(size=(300, 300))
    product = one_blas_thread(lambda: left @ left.T)
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(limits=threads, user_api="blas"):
            found.append(product())
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
