"""Keep libraries quiet: their warnings appear as lines of Graft's own progress."""

import logging
import os
import sys
import warnings

from pipelines.utils.progress import Progress, show_preparations


def quiet_libraries(progress: Progress) -> None:
    """Switch off the progress bars and advice of libraries, and show their warnings as one line each."""
    import transformers

    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # datasets is imported only if data are read, because that takes half a second; it then reads this variable
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if "datasets" in sys.modules:
        import datasets

        datasets.disable_progress_bars()
    for library in (
        "datasets",
        "huggingface_hub",
    ):  # they log every retry, and Graft's error reports the final failure
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|datasets")
    show_warnings(progress)


def show_warnings(progress: Progress) -> None:
    """Show Graft's own warnings as lines of this progress, and long preparations too."""
    show_preparations(progress)
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
