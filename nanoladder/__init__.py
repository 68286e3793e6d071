"""nanoladder: SpatialLadder's three rungs, from scratch, on Qwen2.5-VL's own architecture at any size."""
