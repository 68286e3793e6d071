"""Procedural furnished rooms with exact 3D truth: furniture -> scene -> render."""
