"""Has it worked (chapter 06): `ask` a model a whole set, `score` its answers, and the `statistics` of before and after."""

from .ask import evaluate, evaluate_with_generate
from .score import Evaluation, lenient_accuracy
from .statistics import compare, over_seeds, paired_line, paired_test
