"""`graft baseline` on 500 photos: the seconds of each learner, and of the whole command.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.baseline [PHOTOS] [--model FOLDER] [--count 500]

PHOTOS is a folder with one folder per class, or with such folders in train/ and test/. Without it, photos of 300 pixels
are made: noise with blobs, which has far more keypoints than real photos. The network's predictions are invented, so no
network is trained. MODEL is the model that the run started from; without it, a tiny one with random weights. The
columns of learners are seconds of the clock. The last lines give processor seconds, too, because others may use the
machine.
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

from tests.support import tiny
from tests.support.baseline_runs import finished


def copied(source: Path, target: Path, count: int) -> Path:
    """`count` photos, equally many of every class and split."""
    folders = sorted({path.parent for path in source.rglob("*.jpg")})
    for folder in folders:
        place = target / folder.relative_to(source)
        place.mkdir(parents=True)
        for path in sorted(folder.glob("*.jpg"))[: count // len(folders)]:
            shutil.copy(path, place)
    return target


def processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("photos", nargs="?", type=Path)
    asked.add_argument("--model", type=Path)
    asked.add_argument("--count", type=int, default=500)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.photos is None:
            photos = tiny.photos(folder / "photos", n=given.count // 2, splits=(), size=300)
        else:
            photos = copied(given.photos, folder / "photos", given.count)
        run = finished(folder / "run", photos, given.model or tiny.vit(folder / "vit"))
        began, used = time.perf_counter(), processor()
        from joblib.externals.loky import get_reusable_executor

        from pipelines.baselines.baseline import baseline

        found = baseline(run)
        wall = time.perf_counter() - began
        get_reusable_executor().shutdown(wait=True)  # then its processor time counts
        used = processor() - used
    print(f"{'learner':<48}{'features':>10}{'search':>9}{'of it fit':>11}{'MB':>8}")
    for one in found["learners"]:
        parts = one["seconds"]
        cells = f"{parts['features']:>10.1f}{parts['search']:>9.1f}{parts['fit']:>11.2f}{one['memory_mb']:>8.0f}"
        print(f"{one['name']:<48}{cells}")
    rows = sum(found["rows"].values())
    print(f"\n{rows} photos: {wall:.0f} s, {used:.0f} s of the processor")


if __name__ == "__main__":
    main()
