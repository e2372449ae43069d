"""What TensorRT and TensorRT for RTX share: precision in the graph, engines, files, recipes.

::

    graphs.py    a float32 graph → the ONNX that TensorRT takes a precision from
    settings.py  what an engine is built with
    build.py     ONNX → engine ("plan")
    plan.py      plan → inferences
    cuda.py      the CUDA driver through ctypes
    artefact.py  an engine with what must be known before TensorRT may see it
    recipe.py    where there is no GPU: what to build elsewhere, and how

``settings``, ``build``, ``plan``, ``cuda`` and ``module`` (what modules of TensorRT have in common)
need numpy and ``ofa_deploy.errors`` alone, and run on Python 3.10, which JetPack 6 brings.
"""

__all__: list[str] = []  # nothing is imported here: not all of it may be where some of it runs
