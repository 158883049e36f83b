"""Keep libraries quiet: their warnings appear as lines of Graft's own progress."""

import logging
import os
import warnings

from pipelines.utils.progress import Progress


def quiet_libraries(progress: Progress) -> None:
    """Switch off the progress bars and advice of libraries, and show their warnings as one line each."""
    import datasets
    import transformers

    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for library in (
        "datasets",
        "huggingface_hub",
    ):  # they log every retry, and Graft's error reports the final failure
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|datasets")
    logger = logging.getLogger("graft")
    logger.handlers = [_Say(progress)]
    logger.propagate = False


class _Say(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record. One that is marked `once` is printed once a run, whatever its numbers are."""
        self.progress.warn(record.getMessage(), str(record.msg) if getattr(record, "once", False) else "")
