"""calmcam's trainer: recipes, data, networks, training, export and report card."""

import logging
import os
import platform

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it takes several networks in one run for retracing
if platform.machine() == "x86_64":  # TensorFlow asks for AVX-512 first; on AVX2 `emotions` took 1.80 s a step, not 2.77
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
