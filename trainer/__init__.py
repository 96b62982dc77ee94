"""calmcam's trainer: recipes, data, networks, training, export and report card."""

import logging
import os
import platform

GPU = any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg")))  # of NVIDIA; the second is Windows' for its Linux
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if GPU else "3")  # to lack a GPU is an error to TensorFlow
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it takes several networks in one run for retracing
if platform.machine() == "x86_64":  # TensorFlow asks for AVX-512 first; on AVX2 `emotions` took 1.80 s a step, not 2.77
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
