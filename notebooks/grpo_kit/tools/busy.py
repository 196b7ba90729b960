"""A tool that has to be asked twice: an environment for GRPOTrainer's `environment_factory` (chapter 13)."""

from .calculator import calculate


class Busy:
    "A calculator that is busy, until it is asked twice running for the same result."
    def reset(self, **row):
        self.last, self.answered = None, False

    def calculate(self, expression: str) -> str:
        """Work out a sum of numbers with + - * / and brackets.

        Args:
            expression: The sum to work out, such as 12 * 30 - 4
        """
        last, self.last = self.last, None  # what cannot be read raises in the next line: then there is nothing to repeat
        self.last = calculate(expression)
        if self.last != last:
            raise ValueError("busy")
        self.answered = True
        return self.last


def answered(environments, **columns):
    "1.0 for a completion in which a call was answered."
    return [float(environment.answered) for environment in environments]
