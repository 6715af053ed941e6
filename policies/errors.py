"""What can go wrong while learning, said in words that name the next action.

Every error takes one message, so that it survives pickling on its way between processes.
"""


class PolicyError(Exception):
    """Root of everything that `policies` raises on purpose."""


class ModelFolderError(PolicyError):
    """A folder does not hold a causal language model that may be opened here."""


class TaskError(PolicyError):
    """A task is unknown, cannot be loaded, or was asked for something it does not have."""


class PromptsExhaustedError(TaskError):
    """More prompts of a split were asked for than the task has."""


class TooLongError(PolicyError):
    """Prompt and response take more tokens than the model has positions for."""


class LabelsError(PolicyError):
    """The labels cannot train a reward model."""


class PrecisionError(PolicyError):
    """The hardware lacks the numbers that a phase was to compute in."""


class NonFiniteError(PolicyError):
    """A number that training rests on became NaN or infinite; what it trained is of no use."""
