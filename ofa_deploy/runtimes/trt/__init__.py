"""What TensorRT and TensorRT for RTX share: precision in the graph, engines, files, recipes.

::

    graphs.py    a float32 graph → the ONNX that TensorRT takes a precision from
    settings.py  what an engine is built with, and timed with
    build.py     ONNX → engine ("plan")
    plan.py      plan → inferences
    timed.py     plan → inferences that the GPU times
    cuda.py      the CUDA driver through ctypes
    events.py    its clock, and work that is launched as a whole
    kept.py      files that are known to be whole
    artefact.py  an engine with what must be known before TensorRT may see it
    recipe.py    where there is no GPU: what to build elsewhere, and how
    module.py    what the modules of TensorRT have in common

All but ``graphs``, ``artefact`` and ``recipe`` need numpy and ``ofa_deploy.errors`` alone, and run
on Python 3.8: agents carry them.
"""

__all__: list[str] = []  # nothing is imported here: not all of it may be where some of it runs
