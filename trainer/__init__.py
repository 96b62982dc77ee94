"""calmcam's trainer: recipes, data, networks, training, export and report card."""

import os
import platform

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if platform.machine() == "x86_64":  # TensorFlow asks for AVX-512 first; measured on AVX2, `emotions`: 1.80 s a step, not 2.77
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
