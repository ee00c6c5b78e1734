"""Errors with a meaning for the user. Knows nothing of any other part of the workbench."""


class WorkbenchError(Exception):
    """A failure that is not the user's input; the message is still one plain sentence."""


class InputError(WorkbenchError, ValueError):
    """Bad input: one sentence that names the thing, what was expected and what to do."""


class Cancelled(WorkbenchError):
    """The user asked the running work to stop."""


class Paused(WorkbenchError):
    """The user asked the running work to save its state and make way."""


class Diverged(WorkbenchError):
    """A loss or a weight became NaN or infinite; the last finite state was kept."""
