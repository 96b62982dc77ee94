"""`python -m edge_app` is `calmcam`."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
