"""The errors a user meets: each is one message that names the value, what was expected, and the remedy."""


class OodLabError(Exception):
    """Any error that is shown as one message, without a traceback."""

    exit_code = 1


class RequestError(OodLabError):
    """The request itself is wrong; nothing was started (exit code 2)."""

    exit_code = 2


class RunError(OodLabError):
    """The run could not go on (exit code 1); what it had reported done stays valid."""


class NotDefinedError(RunError, NotImplementedError):
    """A class of one's own lacks a method that its base class leaves to it.

    Args:
        owner: the object.
        name: of the method.
    """

    def __init__(self, owner: object, name: str) -> None:
        super().__init__(f"{type(owner).__name__} must define {name}(); see docs/adding.md")

    def __reduce__(self) -> tuple[type[RunError], tuple[str]]:
        return RunError, (str(self),)  # as which it comes back from a worker process
