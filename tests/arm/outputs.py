"""What models give where the agent opens them: ``outputs.py AGENT PLAIN RESULTS MODEL SHAPE ...``.

Run on this processor and on an emulated one. ``AGENT`` is the file that is sent to devices; it
opens each model as it does to time it, or, where ``PLAIN`` is 1, has the engine compute just what
the file says: each operator by itself, bytes through floats. What comes out is written as numpy
reads it.
"""

import json
import runpy
import sys

import numpy as np
import onnxruntime


def main(agent_file, plain, results, *models):
    agent = runpy.run_path(agent_file, run_name="agent")
    given, run = [], onnxruntime.InferenceSession.run_with_iobinding

    def kept(session, binding, *more):
        run(session, binding, *more)
        given.append(binding.copy_outputs_to_cpu()[0])

    onnxruntime.InferenceSession.run_with_iobinding = kept
    settings = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    if plain == "1":
        settings["graph_optimization_level"] = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = []
    for path, shape in zip(models[::2], models[1::2], strict=True):
        call = agent["_profiling_agent_engines"].open_model(
            path, json.loads(shape), "onnxruntime", settings
        )
        call()
        found.append(given[-1])
    np.savez(results, *found)


if __name__ == "__main__":
    main(*sys.argv[1:])
