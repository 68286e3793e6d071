"""Frames per second of the room renderer on one core:  OMP_NUM_THREADS=1 python tests/perf/bench_render.py"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from data.rooms.render import render, visible_objects  # noqa: E402
from data.rooms.scene import make_scene, single_camera  # noqa: E402


def main():
    start = time.perf_counter()
    scenes = [make_scene(0, "train", i, 3) for i in range(40)]
    print(f"make_scene     {1e3 * (time.perf_counter() - start) / len(scenes):6.1f} ms")
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    shots = [(scene, single_camera(scene, rng)) for scene in scenes]
    print(f"single_camera  {1e3 * (time.perf_counter() - start) / len(shots):6.1f} ms")
    print(
        f"{np.mean([len(s.objects) for s in scenes]):.1f} objects, "
        f"{np.mean([len(s.solids.kind) for s in scenes]):.0f} primitives a room"
    )
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
        ms = [1e3 * b / len(shots) for b in best]
        print(
            f"{size:4d} px: {1e3 / ms[0]:6.0f} frames/s ({ms[0]:.2f} ms), visible_objects {ms[1]:.2f} ms"
        )


if __name__ == "__main__":
    main()
