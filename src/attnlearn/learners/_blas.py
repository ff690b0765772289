"""How many threads linear algebra may use while a learner works."""

import contextlib
import functools

from threadpoolctl import ThreadpoolController

_blas = functools.cache(ThreadpoolController)  # looking for the libraries takes milliseconds


def one_blas_thread() -> contextlib.AbstractContextManager:
    """At small factorisations the threads of BLAS only wait for each other."""
    return _blas().limit(limits=1, user_api="blas")
