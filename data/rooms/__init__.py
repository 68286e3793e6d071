"""Furnished rooms, drawn at random with their exact 3D truth: furniture.py, scene.py, render.py."""
