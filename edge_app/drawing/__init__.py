"""Boxes, labels and charts on a copy of the frame: functions of picture and values that know no model."""
