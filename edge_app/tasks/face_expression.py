"""Cut out the faces and ask a model what they express."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..heads import answers
from ..manifest import Artifact, Manifest
from ..preprocess import crop_faces, sharpness, to_input
from ..types import Backend, Faces, Frame


class Crop:
    """Fill `crops` and `sharpness`, cut as the model's manifest says: exactly as in training."""

    def __init__(self, manifest: Manifest, artifact: Artifact):
        self._crop, self._spec = manifest.crop, artifact.input

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        crops = crop_faces(frame.image, faces.boxes, faces.points, self._crop, self._spec)
        return replace(faces, crops=crops, sharpness=np.array([sharpness(crop) for crop in crops], np.float32))


class Classify:
    """Fill `heads` with calibrated probabilities, all faces in one batch, `labels`, and `device` with what did it."""

    def __init__(self, manifest: Manifest, artifact: Artifact, backend: Backend):
        self._heads, self._artifact, self._backend = manifest.heads, artifact, backend
        self._labels = {head.name: head.labels for head in manifest.heads}
        self._none = {head.name: np.empty((0, len(head.labels)), np.float32) for head in manifest.heads}

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        """BackendError when the engine fails; nothing is run for a frame without faces."""
        heads = self.probabilities(faces.crops) if len(faces) else self._none
        return replace(faces, heads=heads, labels=self._labels, device=self._backend.device)

    def probabilities(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Head name to probabilities (N, C) float32 of crops (N, h, w, c) uint8."""
        return answers(self._heads, self._artifact, self._backend.infer(to_input(crops, self._artifact.input)))
