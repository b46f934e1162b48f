"""Problems, layers and values that the project's tests, benchmarks and examples share."""

from .algorithms import ALGORITHMS, force_algorithm, runs
from .data import Operands, channels_first, in_layout, integer_data, random_data
from .layers import LAYERS, Layer, find_layer
from .problems import SMALL, SMOKE, Problem, parse
from .random_problems import random_problem

__all__ = [
    "ALGORITHMS",
    "LAYERS",
    "SMALL",
    "SMOKE",
    "Layer",
    "Operands",
    "Problem",
    "channels_first",
    "find_layer",
    "force_algorithm",
    "in_layout",
    "integer_data",
    "parse",
    "random_data",
    "random_problem",
    "runs",
]
