"""The one exception whose message is meant for the user's eyes."""


class SteeringError(ValueError):
    """Input or circumstances the user can mend.

    The message is one plain sentence that says what is wrong, where (file, line, field) and what to do. The command
    line prints it and exits with status 2; the page shows it as it is. Anything else that escapes is a bug of ours.
    """
