"""SpatialLadder's stages from scratch, on Qwen2.5-VL's own architecture at any size."""
