"""The commands of `calmcam`, one module each, and what several of them share."""
