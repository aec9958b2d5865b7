"""The two ways in which a run may end early, each with one message and no traceback."""

PRUNED = 3  # exit code of a training that the search of a sweep ended


class UserError(Exception):
    """Something the user can mend: what is wrong, what was found and expected, what mends it.

    The command line prints the message alone and exits with code 2.
    """


class RunStopped(Exception):  # noqa: N818  (it names what happened; a signal is no error)
    """A run that ended before its last step: pre-empted by a signal, or a loss that is not finite.

    Args:
        message: what happened and what was saved.
        exit_code: the process's exit code, never 0 (128 + signal number after a signal).
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
