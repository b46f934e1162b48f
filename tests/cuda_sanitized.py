"""Every own kernel on small shapes, for compute-sanitizer: exits 1 where a result is wrong.

compute-sanitizer --tool memcheck python tests/cuda_sanitized.py

Run with PYTORCH_NO_CUDA_MEMORY_CACHING=1, so that every tensor is an allocation of its own and an
access beside it is one that the tool sees.
"""

from __future__ import annotations

import sys

import torch
from passes import DTYPES, arguments_of, as_channels_last, in_order, torch_passes

from mxdeconv import ops
from mxdeconv.testing import SMALL, SMOKE, Operands, force_algorithm, integer_data


def main() -> int:
    problems = SMOKE if "--smoke" in sys.argv else SMALL
    wrong = 0
    for problem in problems:
        for dtype in DTYPES:
            operands = in_order(integer_data(problem, dtype), problem)
            expected = torch_passes(problem, operands)
            for put in (lambda tensor: tensor, as_channels_last):
                data, weight, bias, out_grad = Operands(*(put(v.cuda()) for v in operands))
                arguments = arguments_of(problem)._replace(cudnn_off=True)
                for algorithm in (None, "minimal_filter"):
                    with force_algorithm(algorithm):
                        results = {
                            "out": ops.deconvolution(data, weight, bias, arguments),
                            "data_grad": ops.deconvolution_data(weight, out_grad, arguments),
                            "weight_grad": ops.deconvolution_weight(data, out_grad, arguments),
                        }
                    for name, value in results.items():
                        if not torch.equal(value.cpu(), expected[name].to(dtype)):
                            print(f"wrong: {name} of {problem} in {dtype}")
                            wrong += 1
    print(f"{len(problems)} problems, {wrong} wrong results")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
