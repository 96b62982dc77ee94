"""What `calmcam doctor` looks at."""
