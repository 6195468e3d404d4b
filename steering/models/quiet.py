"""Keep what libraries print while a model is read off the terminal; failures are raised as exceptions."""

import contextlib
import warnings
from collections.abc import Iterator

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within this context, silence the progress bars, log lines and deprecation warnings of transformers and the hub.

    Deprecations are addressed to programmers, not to people who load a model. The settings are process-wide, and
    restored at the end.
    """
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
