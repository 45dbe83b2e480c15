"""What people read in one line instead of a traceback."""


class UserError(Exception):
    """The user's mistake (exit code 2): the message says what, where, what is allowed, and what to do."""


class Stopped(Exception):
    """A run that stopped on a signal with everything saved (exit code 75): started again, it resumes."""


class Failure(Exception):
    """Something that failed although the user did nothing wrong (exit code 1), and whose message says it all."""

    on_every_rank = False
    """Whether all ranks fail alike, so that one of them is enough to report it."""
