"""Sentences that every model card carries, whatever was trained."""

from __future__ import annotations

LIMITS = (
    "It names the expression that people would see in a face. It does not know what the person feels, thinks or "
    "intends.",
    "Scores are means over pictures of one data set. Single persons, ages, skin tones, glasses, beards, masks, head "
    "turns, dim light and motion blur can be answered much worse; who is shown was not counted, so fairness between "
    "groups is unknown.",
    "A confidence is a share over many pictures like those it was calibrated on, not a certainty about one face.",
    "It looks at one picture. What the edge says about a person over time is smoothed from many of them.",
    "It is not for medical, legal, hiring, teaching or policing decisions about people.",
)
AI_ACT = (
    "European Union: a system that infers emotions of people from their faces is an emotion recognition system under "
    "Regulation (EU) 2024/1689. Article 5(1)(f) prohibits it at workplaces and in education except for medical or "
    "safety reasons; elsewhere Annex III 1(c) makes it high-risk, and Article 50(3) obliges whoever deploys it to tell "
    "the people exposed to it. Faces are personal data (GDPR). This note is no legal advice."
)
CALIBRATION = (
    "Temperature scaling (Guo et al. 2017) and the unsure threshold were fitted on the validation part with this "
    "variant's logits; below the threshold answers were more often wrong than right there, by more than a 95 % interval."
)
UNCALIBRATED = (
    "Confidences are not calibrated: that takes {pictures} pictures of {groups} persons or clips in the validation part, "
    "and wrong answers among them."
)
SPLITS = {
    "validation": "validation: temperature, threshold and, unless the last, weights were chosen on it, so it flatters",
    "test": "test: used after everything was chosen, on these weights {times}",
    "test without duplicates of train": "test without the pictures whose file is byte-identical to one of training",
    "test, FER+ majority": "test, pictures of which more than half of all FER+ votes name one label, the truth here",
}
CHANCE = "ECE is above 0 by chance alone, the more the fewer pictures there are"
ONE_CROP = "one crop per face, no test-time augmentation; weights start from {start}"
STARTS = {  # by the recipe's backbone; another is a file or a run
    "none": "nothing",
    "imagenet": "ImageNet's",
    "dlib": "those of dlib's face network",
    "emotions": "those of our own `emotions`",
}
GROUPS = "groups (persons, sessions or clips as they were named; a picture without is one of its own): {counts}"
FEW_GROUPS = "{part}: of fewer than {few} groups, so its score holds for these people or clips only"
NO_TEST = (
    "{head}: the test part has no picture of it, so its score is that of the validation part, which flatters; "
    "`calmcam train --set data.test=0.2` holds some out"
)
NO_BETTER = (
    "{head}, {split}: no better than always saying {label}, which is right for {share} of these pictures, as far as its "
    "interval tells"
)
