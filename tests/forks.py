"""Crews of Dask whose processes fork from one that has imported all: that takes seconds, once and not for each."""

import importlib
import os
import subprocess
from multiprocessing import context, get_context

from studies.crews import Crew


class Forked(context.ForkServerProcess):
    """A scheduler, or workers, as `subprocess.Popen` of their command would start them."""

    def __init__(self, kind, arguments):
        super().__init__()
        self.kind, self.arguments = kind, arguments

    def run(self):
        import dask

        os.setsid()
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        dask.config.set({"distributed.worker.multiprocessing-method": "fork"})
        importlib.import_module(f"distributed.cli.dask_{self.kind}").main(self.arguments)

    def wait(self, timeout=None):
        self.join(timeout)
        if self.exitcode is None:
            raise subprocess.TimeoutExpired(self.kind, timeout)


class ForkedCrew(Crew):
    """A crew as those of the studies, which starts at once."""

    @staticmethod
    def _start(kind, *arguments):
        get_context("forkserver").set_forkserver_preload(["neumatc.distributed"])
        process = Forked(kind, arguments)
        process.start()
        return process
