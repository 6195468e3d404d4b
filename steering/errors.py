"""The one exception whose message is written for the user."""


class SteeringError(ValueError):
    """Bad input, or circumstances that the user can change (a full disk, no network).

    The message is one plain sentence that says what is wrong, where (file, line, field) and what to do. The command
    line prints it and exits with status 2; the page shows it as it is. Any other exception that escapes is a bug.
    """


class UnknownColumns(SteeringError):
    """It cannot be told which columns of a file hold prompt, chosen and rejected; each door says how to name them."""


class LoadingCancelled(SteeringError):
    """A model's loading was given up because somebody asked for it."""
