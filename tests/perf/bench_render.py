"""How many frames a second the room renderer makes on one core.

OMP_NUM_THREADS=1 python tests/perf/bench_render.py
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.rooms.render import render, visible_objects  # noqa: E402
from data.rooms.scene import make_scene, single_camera  # noqa: E402


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rooms", type=int, default=40, help="rooms to render")
    args = parser.parse_args()
    start = time.perf_counter()
    scenes = [make_scene(0, "train", i, 3) for i in range(args.rooms)]
    print(f"make_scene     {1e3 * (time.perf_counter() - start) / len(scenes):6.1f} ms")
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    shots = [(scene, single_camera(scene, rng)) for scene in scenes]
    print(f"single_camera  {1e3 * (time.perf_counter() - start) / len(shots):6.1f} ms")
    objects = np.mean([len(scene.objects) for scene in scenes])
    primitives = np.mean([len(scene.solids.kind) for scene in scenes])
    print(f"{objects:.1f} objects, {primitives:.0f} primitives a room")
    for size in (64, 96, 128):
        best = [np.inf, np.inf]
        for _ in range(3):
            start = time.perf_counter()
            frames = [render(scene, camera, size) for scene, camera in shots]
            best[0] = min(best[0], time.perf_counter() - start)
            start = time.perf_counter()
            for (scene, camera), frame in zip(shots, frames):
                visible_objects(scene, camera, frame)
            best[1] = min(best[1], time.perf_counter() - start)
        rendered, searched = (1e3 * seconds / len(shots) for seconds in best)
        speed = f"{1e3 / rendered:6.0f} frames/s ({rendered:.2f} ms)"
        print(f"{size:4d} px: {speed}, visible_objects {searched:.2f} ms")


if __name__ == "__main__":
    main()
