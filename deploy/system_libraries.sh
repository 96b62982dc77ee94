#!/bin/sh
# Looks for the system libraries that the OpenCV and MediaPipe wheels load and a minimal Debian or Pi OS Lite lacks;
# installs the missing ones with apt, or prints the line that does and stops.
set -eu

missing=""
need() { # need LIBRARY PACKAGE
    for folder in /lib /usr/lib /usr/local/lib /lib/*-linux-gnu /usr/lib/*-linux-gnu /lib64 /usr/lib64; do
        [ -e "$folder/$1" ] && return 0
    done
    missing="$missing $2"
}
need libxcb.so.1 libxcb1
need libGL.so.1 libgl1
need libglib-2.0.so.0 libglib2.0-0
need libEGL.so.1 libegl1
need libGLESv2.so.2 libgles2

# python3 -m venv needs ensurepip, which Debian packs apart.
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

[ -n "$missing" ] || exit 0
line="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null; then
    echo "calmcam: these system libraries are missing:$missing; install them with your package manager" >&2
    exit 2
fi
if [ "$(id -u)" = 0 ]; then
    run=""
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    run="sudo"
else
    echo "calmcam: system libraries are missing; run: sudo $line" >&2
    exit 2
fi
echo "calmcam: installing missing system libraries: $run $line"
$run apt-get update -q >/dev/null
DEBIAN_FRONTEND=noninteractive $run $line >/dev/null
